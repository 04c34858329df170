"""A local AWS STS that denies every AssumeRole request."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler

# STS responds in XML, with its own error codes.
DENIED_ROLE = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>AccessDenied</Code><Message>User: arn:aws:iam::1:user/airflow is not authorized to perform: sts:AssumeRole on
resource: arn:aws:iam::1:role/mine</Message></Error><RequestId>1</RequestId></ErrorResponse>"""


class DenyingSts(BaseHTTPRequestHandler):
    code = "AccessDenied"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = DENIED_ROLE.replace("<Code>AccessDenied<", f"<Code>{self.code}<")
        self.send_response(403)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass
