"""Gajim with an account that is set up already.

gajim_client.py DIR JID PASSWORD HOST PORT CERTIFICATE
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
from gajim.gajim import main  # noqa: E402

main()
