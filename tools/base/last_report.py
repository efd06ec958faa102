"""The last resort: tell that a run could not even start, with the standard library alone.

It goes to the backup reporting tool (docs/report.md) and to the channels of NOTIFY (docs/notify.md)
that want failures. Only `backup.py -r` sends it. It never raises and never waits for ever.

Python 3.6 can read and run this file: it keeps to the grammar and the library of that version.
"""

import argparse
import base64
import datetime
import http.client
import json
import platform
import re
import smtplib
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from email.message import EmailMessage
from email.utils import formatdate

from tools.base.bounded_smtp import BoundedSMTP, BoundedSMTPOverTLS
from tools.base.last_config import MOST_BYTES, Config, one_line

CONF = "/etc/nc-backup-py/conf.json"
_LONGEST = 120.0  # seconds for all channels together, which are tried at the same time
_TIMEOUT = 15.0  # seconds of each step of a connection
_PAUSES = (2.0, 5.0, 15.0, 30.0)  # seconds before another attempt, where there was no connection
_LARGEST_LOG = 10000  # bytes of the body of a ping
_PROBLEM = ("failure", "problems", "all")  # words of ON that ask for this report
_DEFAULT_ON = {"email": "problems", "ntfy": "problems", "webhook": "all", "ping": "start all"}
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_HERE = ("localhost", "127.0.0.1", "::1")
_FAILED = 1  # exit code of the run


class _NotSentError(Exception):
    """A channel did not take the report. again: whether another attempt can help."""

    def __init__(self, text: str, again: bool = False) -> None:
        super().__init__(text)
        self.again = again


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are answers like others: the report goes where the config says, or nowhere."""

    def redirect_request(self, *_args: object) -> None:
        return None


def send(argv: "list[str]", problem: str) -> None:
    """Send the report of a run that could not start, and print what became of it. Never raises.

    argv: the arguments of backup.py. problem: why it could not start, in one line
    """
    try:
        arguments = _arguments(argv)
        if arguments is not None and arguments.run:
            config = Config(arguments.config, arguments.insecure_permissions)
            _deliver(config, _Report(config, problem))
    except Exception as error:
        _say("report: not sent: %s" % error)


def _arguments(argv: "list[str]") -> "argparse.Namespace | None":
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("-r", "--run", action="store_true")
    for flag in ("-t", "-n", "-v"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--insecure-permissions", action="store_true")
    parser.add_argument("-l")
    parser.add_argument("-c", "--config", default=CONF)
    try:
        return parser.parse_known_args(argv)[0]
    except SystemExit:
        return None


def _say(line: str) -> None:
    sys.stderr.write(one_line(line) + "\n")


# --- the report


class _Report:
    """What is to be said, in the forms that the channels want."""

    def __init__(self, config: Config, problem: str) -> None:
        now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
        self.hostname = config.hostname
        self.run_id = now.strftime("%Y%m%d_%H%M%S")
        self.begin = now.isoformat()
        self.problem = one_line(problem)
        self.hint = "Run backup.py -t on %s to see the error." % platform.node()
        self.summary = "[%s] backup failed: %s" % (self.hostname, self.problem)
        self.text = "%s\n\nThe backup could not start. Nothing was stored.\n%s\n" % (
            self.summary,
            self.hint,
        )

    def form(self) -> "dict[str, str]":
        """Return the fields of docs/report.md."""
        return {
            "srvname": self.hostname,
            "result": "1",
            "bckmethod": "ncscript-py",
            "size": "N/A",
            "log": "error: %s\nhint: %s\n" % (self.problem, self.hint),
            "error": self.problem,
            "destination": "",
            "run_id": self.run_id,
        }

    def document(self) -> "dict[str, object]":
        """Return the JSON document of the run (docs/run.schema.json)."""
        problem = {"level": "error", "section": None, "text": self.problem, "hint": self.hint}
        document = {
            "version": 1,
            "action": "backup",
            "run_id": self.run_id,
            "hostname": self.hostname,
            "program": "nc-backup-py",
            "machine": {"id": "", "name": platform.node()},
            "config": {"id": "", "sha256": ""},
            "mode": None,
            "begin": self.begin,
            "end": self.begin,
            "seconds": 0.0,
            "status": "failed",
            "exit_code": _FAILED,
            "message": self.problem,
            "hint": self.hint,
            "size": "N/A",
            "bytes": 0,
            "problems": [problem],
        }  # type: dict[str, object]
        lists = ("notices", "destinations", "sections", "stores", "items")
        return dict(document, **{name: [] for name in lists})

    def filled(self, template: object) -> object:
        """Return a template with the fields of the run."""
        if isinstance(template, dict):
            return {key: self.filled(value) for key, value in template.items()}
        if isinstance(template, list):
            return [self.filled(value) for value in template]
        if not isinstance(template, str):
            return template
        fields = dict(self.document(), outcome="failure", summary=self.summary, text=self.text)
        fields["log"] = ""
        alone = re.match(r"\{([a-z_]+)\}\Z", template)
        if alone and alone.group(1) in fields:
            return fields[alone.group(1)]
        return re.sub(
            r"\{([a-z_]+)\}",
            lambda match: str(fields.get(match.group(1), match.group(0))),
            template,
        )


# --- the channels


def _deliver(config: Config, report: _Report) -> None:
    """Send the report to every channel at the same time, and print what became of it."""
    channels = {name: settings for name, settings in config.channels.items() if _wants(settings)}
    if config.general.get("MESSAGE_CONFIG_COMMAND"):
        channels["report server"] = dict(config.general, TYPE="brt")
    results = dict.fromkeys(channels, "no answer in %d s" % _LONGEST)
    deadline = time.monotonic() + _LONGEST
    threads = []
    for name, settings in channels.items():

        def work(name: str = name, settings: object = settings) -> None:
            results[name] = _sent(config, settings, report, deadline)

        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for name, result in sorted(results.items()):
        _say("report: %s: %s" % (name, config.masked(result)))
    if not channels:
        _say("report: not sent: the config has no channel for it")


def _wants(settings: object) -> bool:
    """Return whether a channel is one that can be used here, and wants to hear of failures."""
    if not isinstance(settings, dict) or str(settings.get("TYPE")) not in _DEFAULT_ON:
        return False
    events = settings.get("ON") or _DEFAULT_ON[str(settings["TYPE"])]
    events = events.split() if isinstance(events, str) else events
    return isinstance(events, list) and bool(set(_PROBLEM) & set(map(str, events)))


def _sent(config: Config, settings: object, report: _Report, deadline: float) -> str:
    """Send the report to one channel; return "delivered", or why it was not."""
    assert isinstance(settings, dict)  # noqa: S101  (for mypy)
    send_ = _SENDERS[str(settings["TYPE"])]
    for pause in _PAUSES + (None,):
        try:
            send_(config, settings, report)
            return "delivered"
        except _NotSentError as error:
            if pause is None or not error.again or time.monotonic() + pause > deadline:
                return "not delivered: %s" % error
            time.sleep(pause)
        except KeyError as error:
            return "not delivered: %s is missing" % error
        except Exception as error:  # whatever a setting or an answer causes
            return "not delivered: %s: %s" % (type(error).__name__, error)
    raise AssertionError


def _report_server(config: Config, settings: "dict[str, object]", report: _Report) -> None:
    """Post to the backup reporting tool, which acknowledges a report by name and number."""
    url = str(settings["MESSAGE_CONFIG_COMMAND"])
    form = {key: config.masked(value) for key, value in report.form().items()}
    body = urllib.parse.urlencode(form).encode("ascii")
    answer = _posted(url, body, {"Content-Type": "application/x-www-form-urlencoded"})
    text = r"New Backup result added for server:\s*%s\.\s*This backup ID is:\s*\d+"
    if not re.search(text % re.escape(report.hostname), answer, re.I):
        raise _NotSentError("the server did not acknowledge it")


def _webhook(config: Config, settings: "dict[str, object]", report: _Report) -> None:
    template = settings.get("TEMPLATE")
    content = report.document() if template is None else report.filled(template)
    keys = settings.get("HEADERS") or {}
    assert isinstance(keys, dict)  # noqa: S101  (reported as any other error)
    headers = {str(key): config.secret(value) for key, value in keys.items()}
    headers["Content-Type"] = "application/json"
    headers.update(_token(config, settings))
    body = config.masked(json.dumps(content)).encode("utf-8")
    _posted(config.secret(settings["URL"]), body, headers)


def _ping(config: Config, settings: "dict[str, object]", report: _Report) -> None:
    name = "nc-backup-py:%s/%s" % (report.hostname, report.run_id)
    rid = uuid.uuid5(uuid.NAMESPACE_URL, name)
    url = "%s/%d?rid=%s" % (config.secret(settings["URL"]).rstrip("/"), _FAILED, rid)
    _posted(url, config.masked(report.text).encode("utf-8")[:_LARGEST_LOG], {})


def _ntfy(config: Config, settings: "dict[str, object]", report: _Report) -> None:
    headers = {
        "Title": config.masked(report.summary).encode("ascii", "replace").decode("ascii", "replace")
    }
    headers["Priority"] = "4"
    headers.update(_token(config, settings))
    if settings.get("USER") and "Authorization" not in headers:
        login = "%s:%s" % (settings["USER"], config.secret(settings.get("PASSWORD")))
        headers["Authorization"] = "Basic " + str(base64.b64encode(login.encode()), "ascii")
    body = config.masked(report.text).encode("utf-8")
    _posted(config.secret(settings["URL"]), body, headers)


def _token(config: Config, settings: "dict[str, object]") -> "dict[str, str]":
    token = config.secret(settings.get("TOKEN"))
    return {"Authorization": "Bearer " + token} if token else {}


def _check(url: str, headers: "dict[str, str]") -> None:
    """Refuse what http.client would refuse with a text that shows it, secrets included."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # its text shows the host
        raise _NotSentError("URL is not valid") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise _NotSentError("URL must begin with https://HOST, without a user name")
    if not re.match("[!-~]+\\Z", url):
        raise _NotSentError("URL must not contain spaces, control or other than ASCII characters")
    for name, value in headers.items():
        if not (name + value).isprintable():
            raise _NotSentError("%s: holds a line break or a control character" % one_line(name))


def _posted(url: str, body: bytes, headers: "dict[str, str]") -> str:
    """Post bytes, and return the beginning of the answer. Raises _NotSentError."""
    _check(url, headers)
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(request, timeout=_TIMEOUT) as answer:
            if not 200 <= answer.status < 300:  # noqa: PLR2004  (RFC 9110)
                raise _NotSentError("the server returned %d" % answer.status)
            return str(answer.read(MOST_BYTES).decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        redirects = "; redirects are not followed" if error.code // 100 == 3 else ""  # noqa: PLR2004
        raise _NotSentError("the server returned %d%s" % (error.code, redirects)) from None
    except urllib.error.URLError as error:
        wrong = isinstance(error.reason, ssl.SSLError)
        host = urllib.parse.urlsplit(url).netloc  # a user name in it was rejected before
        raise _NotSentError("%s: %s" % (host, error.reason), again=not wrong) from None
    except http.client.InvalidURL:  # its text shows the URL
        raise _NotSentError("URL is not valid") from None
    except socket.timeout:
        raise _NotSentError("no answer in %d s" % _TIMEOUT) from None


def _email(config: Config, settings: "dict[str, object]", report: _Report) -> None:
    to = settings["TO"]
    names = to.split() if isinstance(to, str) else to
    assert isinstance(names, list)  # noqa: S101  (reported as any other error)
    message = EmailMessage()
    message["Subject"] = config.masked(report.summary)[:200]
    message["From"] = str(settings["FROM"])
    message["To"] = ", ".join(str(name).rstrip(",") for name in names)
    message["Date"] = formatdate()
    message["Message-ID"] = "<%s.%s@nc-backup-py>" % (report.run_id, uuid.uuid4().hex[:8])
    message.set_content(config.masked(report.text))
    try:
        with _connected(config, settings) as server:
            if settings.get("USER"):
                server.login(str(settings["USER"]), config.secret(settings.get("PASSWORD")))
            server.send_message(message)
    except (smtplib.SMTPException, ssl.SSLError) as error:
        name = type(error).__name__
        raise _NotSentError("%s: %s: %s" % (_mail_host(settings), name, error)) from None
    except OSError as error:
        raise _NotSentError("%s: %s" % (_mail_host(settings), error), again=True) from None


def _mail_host(settings: "dict[str, object]") -> str:
    return str(settings.get("SMTP_HOST") or "localhost")


def _connected(config: Config, settings: "dict[str, object]") -> smtplib.SMTP:
    """Return a connection to the mail server, secured as the config wants it."""
    host = _mail_host(settings)
    security = str(settings.get("SMTP_SECURITY") or ("none" if host in _HERE else "starttls"))
    port = int(str(settings.get("SMTP_PORT") or _PORTS[security]))
    context = ssl.create_default_context(cafile=str(settings.get("CA_FILE") or "") or None)
    if security == "tls":
        return BoundedSMTPOverTLS(host, port, timeout=_TIMEOUT, context=context)
    server = BoundedSMTP(host, port, timeout=_TIMEOUT)
    if security == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


_SENDERS = {
    "brt": _report_server,
    "webhook": _webhook,
    "ping": _ping,
    "ntfy": _ntfy,
    "email": _email,
}
