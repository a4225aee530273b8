"""The Open Inference Protocol, version 2, as other servers of models speak it (`/v2`)."""
