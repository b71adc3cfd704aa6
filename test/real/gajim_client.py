"""Gajim with an account that is set up already.

gajim_client.py DIR JID PASSWORD HOST PORT CERTIFICATE

input: change PASSWORD   say JID TEXT
output, a line each: online   changed   unchanged WHY   text FROM JSON
"""
import json
import os
import shutil
import sqlite3
import sys

where, jid, password, host, port, cert = sys.argv[1:]
user, domain = jid.split("@")
os.geteuid = lambda: 1000  # Gajim does not run as root, and in a container there may be nobody else

from gajim.common.settings import CREATE_SQL  # noqa: E402

os.makedirs(where + "/cert_store")
shutil.copy(cert, where + "/cert_store/otrproxy")  # as after "add this certificate to the list of trusted ones"
db = sqlite3.connect(where + "/settings.sqlite")
db.executescript(CREATE_SQL)
db.execute("UPDATE settings SET settings = ? WHERE name = 'app'", (json.dumps({
    "use_keyring": False, "check_for_update": False}),))
db.execute("INSERT INTO account_settings VALUES (?, ?)", (jid, json.dumps({"contact": {}, "group_chat": {}, "account": {
    "account_label": jid, "name": user, "hostname": domain, "resource": "gajim", "password": password, "savepass": True,
    "active": True, "autoconnect": True, "use_custom_host": True, "custom_host": host, "custom_port": int(port),
    "custom_type": "START TLS", "enable_gssapi": False}})))
db.commit()
db.close()

sys.argv = ["gajim", "--config-path", where, "--loglevel", "gajim=INFO,nbxmpp=INFO"]
from gajim.common import app, ged  # noqa: E402
from gajim.common.structs import OutgoingMessage  # noqa: E402
from gajim.gajim import main  # noqa: E402
from gi.repository import GLib  # noqa: E402


def out(*words):
    print(*words, flush=True)


def changed(task):
    """Is told what came of what the window "Change Password" asks for."""
    try:
        task.finish()
    except Exception as e:
        out("unchanged", e)
    else:
        out("changed")


def told(*_):
    word, _, rest = sys.stdin.readline().rstrip("\n").partition(" ")
    if word == "change":
        app.get_client(jid).get_module("Register").change_password(rest, callback=changed)
    elif word == "say":
        to, _, text = rest.partition(" ")
        contact = app.get_client(jid).get_module("Contacts").get_contact(to)
        app.get_client(jid).send_message(OutgoingMessage(account=jid, contact=contact, message=text, type_="chat"))
    return word != ""


def listen():
    if not getattr(app, "ged", None):
        return True
    app.ged.register_event_handler("message-received", ged.POSTGUI, lambda e: out("text", e.fjid, json.dumps(e.msgtxt, ensure_ascii=False)))
    return False


def connected():
    if not getattr(app, "ged", None) or jid not in app.connections or not app.account_is_available(jid):
        return True
    out("online")
    return False


GLib.io_add_watch(0, GLib.IO_IN, told)
GLib.timeout_add(100, listen)
GLib.timeout_add(100, connected)

main()
