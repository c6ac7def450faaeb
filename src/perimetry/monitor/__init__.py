"""The service: readings of prompts over HTTP, beside a language model. The process that listens never imports torch."""
