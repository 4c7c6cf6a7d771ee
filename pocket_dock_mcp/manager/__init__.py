"""Who owns which sandbox, until when, within which quota."""
