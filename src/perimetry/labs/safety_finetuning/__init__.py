"""The lab `safety-finetuning`: how does a model come to refuse, and what passes all the same?"""
