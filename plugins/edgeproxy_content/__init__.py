"""Routes by what a request holds: fields, language, device, media type, body, expression."""
