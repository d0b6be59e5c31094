"""Every statement of the theory as an executable check."""

__all__: list[str] = []
