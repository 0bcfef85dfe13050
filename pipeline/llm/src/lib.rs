//! A client for OpenAI-compatible servers: requests that adapt to the server, and a cache of completions that is never asked twice.
