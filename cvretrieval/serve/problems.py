"""What goes wrong with a request, in one form: a status and one sentence."""

from __future__ import annotations


class Problem(Exception):
    """A request that cannot be answered.

    Parameters
    ----------
    status : int
        Of HTTP.
    detail : str
        One sentence for people.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
