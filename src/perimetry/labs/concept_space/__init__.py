"""The lab `concept-space`: in what order are concepts learned, and is an unseen combination of them wrong?"""
