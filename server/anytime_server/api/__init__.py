"""HTTP and the websocket: requests in, answers out (FastAPI)."""
