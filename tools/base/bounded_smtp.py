"""Connections to mail servers whose answers have an end: smtplib would collect them for ever.

Python 3.6 can read and run this file: it keeps to the grammar and the library of that version.
"""

import smtplib
import typing

_MOST = 1 << 20  # bytes of all answers of one connection


class _Answers:
    """The file that smtplib reads answers from. Raises OSError where they are too long."""

    def __init__(self, file: typing.BinaryIO) -> None:
        self._file = file
        self._bytes_left = _MOST

    def readline(self, most: int = -1) -> bytes:
        line = self._file.readline(most)
        self._bytes_left -= len(line)
        if self._bytes_left < 0:
            raise OSError(f"answers of more than {_MOST} bytes")
        return line

    def close(self) -> None:
        self._file.close()


class _Bounded(smtplib.SMTP):
    """As smtplib's.

    opened: called with this connection before its first answer is read, so that another thread can
    end the wait for it
    """

    def __init__(
        self,
        *arguments: typing.Any,  # noqa: ANN401  (those of smtplib)
        opened: "typing.Callable[[smtplib.SMTP], None]" = lambda _self: None,
        **options: typing.Any,  # noqa: ANN401  (as above)
    ) -> None:
        self._opened = opened
        super().__init__(*arguments, **options)

    def getreply(self) -> "tuple[int, bytes]":
        """Return code and text of an answer. Raises smtplib.SMTPException."""
        if self.file is None and self.sock is not None:  # also after STARTTLS
            self.file = _Answers(self.sock.makefile("rb"))
            self._opened(self)
        return super().getreply()


class BoundedSMTP(_Bounded):
    """As smtplib.SMTP."""


class BoundedSMTPOverTLS(_Bounded, smtplib.SMTP_SSL):
    """As smtplib.SMTP_SSL."""
