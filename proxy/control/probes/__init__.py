"""Health checks of a member, one probe each: what is asked, and what counts as an answer.

``probe`` runs one and always has a ``Result``: whether the member passed, and one line that says
why or what was seen. Each module speaks some protocols: ``web`` HTTP, ``mail`` SMTP, LMTP, IMAP and
POP3, ``database`` MySQL, ``program`` a command of the operator's; ``line`` is the connection under
all of them, and reads bounded amounts. Nothing here counts results or knows when the next probe is
due, and nothing here is to be run in the supervisor: bytes of members are parsed, names looked up.
"""
