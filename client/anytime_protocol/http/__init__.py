"""The protocol over HTTP: headers, query strings and problem details."""
