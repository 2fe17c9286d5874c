"""The HTTP routes beside the UI: the OpenAI-style /v1 and the owner's command port."""
