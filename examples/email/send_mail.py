"""Does one job: sends the e-mail on standard input. The exit code says what becomes of the job, and the last lines of standard
error say why.

0  it is sent
75 try again later: the mail server is not there, or has no time
65 never try again: the job makes no sense, or the mail server does not want it
"""

import json
import os
import smtplib
import sys
from email.message import EmailMessage

TRY_AGAIN, NEVER = 75, 65


def main():
    job = json.load(sys.stdin)
    mail = EmailMessage()
    mail["From"] = "post-office@example.org"
    mail["To"] = job["to"]
    mail["Subject"] = "A letter"
    # A mail that is sent twice after a crash is recognized by this.
    mail["Message-ID"] = f"<{os.environ.get('LEVERET_MESSAGE_ID') or 'none'}@example.org>"
    mail.set_content(job["text"])
    with smtplib.SMTP("127.0.0.1", int(os.environ.get("MAIL_PORT", "1025")), timeout=10) as server:
        server.send_message(mail)


try:
    main()
except (ValueError, KeyError) as error:
    print(f"the job makes no sense: {error!r}", file=sys.stderr)
    sys.exit(NEVER)
except smtplib.SMTPRecipientsRefused as error:
    code, text = next(iter(error.recipients.values()))
    print(f"the mail server refuses the address: {code} {text.decode()}", file=sys.stderr)
    sys.exit(NEVER if code >= 500 else TRY_AGAIN)
except (OSError, smtplib.SMTPException) as error:
    print(f"the mail server cannot be reached: {error}", file=sys.stderr)
    sys.exit(TRY_AGAIN)
