"""An unmodified slixmpp client without OTR, driven by lines on standard input.

usage: slixmpp_client.py JID PASSWORD HOST PORT plain|starttls|direct [RESOURCE [carbons] [tls1.2] [ca=FILE]]
    HOST "-": where DNS says that the server is
input: say JID ID TEXT (TEXT as a JSON string)   archive   quit
    items JID NODE   execute JID NODE VALUES (a form's values as JSON; NODE as a JSON string)   add JID   remove JID
output, a line each: online FULLJID   text FROM JSON   error ID CONDITION TEXT   present FROM   failed WHY   closed
    carbon FROM TO JSON   archived FROM TO JSON   archive NUMBER
    items JSON   fields JSON   executed STATUS NOTE-TYPE JSON   roster JID SUBSCRIPTION
"""
import asyncio
import json
import ssl
import sys

import slixmpp

jid, password, host, port, entry = sys.argv[1:6]
resource = sys.argv[6] if len(sys.argv) > 6 else "slixmpp"
carbons = "carbons" in sys.argv[7:]
ca = [w[3:] for w in sys.argv[7:] if w.startswith("ca=")]  # without one, any certificate will do


def say(*words):
    print(*words, flush=True)


class Client(slixmpp.ClientXMPP):
    def __init__(self):
        super().__init__(jid + "/" + resource, password)
        if "tls1.2" in sys.argv[7:]:
            self.ssl_context.maximum_version = ssl.TLSVersion.TLSv1_2
        if ca:
            self.ssl_context.load_verify_locations(ca[0])
        else:
            self.ssl_context.check_hostname = False
            self.ssl_context.verify_mode = ssl.CERT_NONE
        self["feature_mechanisms"].unencrypted_plain = True
        self.auto_authorize = True
        self.auto_subscribe = True
        self.register_plugin("xep_0280")
        self.register_plugin("xep_0313")
        self.register_plugin("xep_0030")
        self.register_plugin("xep_0004")
        self.register_plugin("xep_0050")
        self.add_event_handler("roster_update", self.roster_pushed)
        self.add_event_handler("carbon_received", lambda m: self.copy("carbon", m["carbon_received"]))
        self.add_event_handler("carbon_sent", lambda m: self.copy("carbon", m["carbon_sent"]))
        self.add_event_handler("session_start", self.online)
        self.add_event_handler("message", self.text)
        self.add_event_handler("presence_available", lambda p: say("present", p["from"].full))
        self.add_event_handler("message_error", self.error)
        self.add_event_handler("failed_auth", lambda e: say("failed", "auth"))
        self.add_event_handler("stream_error", lambda e: say("failed", e["condition"], json.dumps(e["text"])))
        self.add_event_handler("disconnected", lambda e: say("closed"))

    async def online(self, _):
        self.send_presence()
        await self.get_roster()
        if carbons:
            await self["xep_0280"].enable()
        say("online", self.boundjid.full)

    def text(self, m):
        if m["type"] != "error" and m["body"]:
            say("text", m["from"].full, json.dumps(m["body"], ensure_ascii=False))

    def copy(self, what, m):
        say(what, m["from"].full, m["to"].full, json.dumps(m["body"], ensure_ascii=False))

    def roster_pushed(self, iq):
        for who, item in iq["roster"]["items"].items():
            say("roster", who, item["subscription"])

    async def items(self, to, node):
        found = await self["xep_0030"].get_items(jid=to, node=node or None)
        say("items", json.dumps(sorted([i[0], i[1] or "", i[2] or ""] for i in found["disco_items"]["items"])))

    async def execute(self, to, node, values):
        iq = await self["xep_0050"].send_command(to, node)
        if iq["command"]["status"] == "executing":
            form = iq["command"]["form"]
            say("fields", json.dumps([[n, f["type"], f["required"]] for n, f in form.get_fields().items()]))
            reply = self["xep_0004"].make_form(ftype="submit")
            for name, value in values.items():
                reply.add_field(var=name, value=value)
            iq = await self["xep_0050"].send_command(to, node, action="complete", payload=reply, sessionid=iq["command"]["sessionid"])
        form = iq["command"]["form"]
        words = [form["instructions"] or ""] + [str(f["value"]) for f in form.get_fields().values() if f["var"] == "result"]
        for kind, _ in iq["command"]["notes"] or [("", "")]:
            say("executed", iq["command"]["status"], kind, json.dumps(" ".join(words)))

    async def archive(self):
        answer = await self["xep_0313"].retrieve()
        results = answer["mam"]["results"]
        for r in results:
            self.copy("archived", r["mam_result"]["forwarded"]["stanza"])
        say("archive", len(results))

    def error(self, m):
        say("error", m["id"], m["error"]["condition"], json.dumps(m["error"]["text"], ensure_ascii=False))

    def line(self, line):
        word, _, rest = line.strip().partition(" ")
        if word == "say":
            to, mid, text = rest.split(" ", 2)
            m = self.make_message(to, json.loads(text), mtype="chat")
            m["id"] = mid
            m.send()
        elif word == "archive":
            self.task = asyncio.ensure_future(self.archive())
        elif word == "items":
            to, _, node = rest.partition(" ")
            self.task = asyncio.ensure_future(self.items(to, node))
        elif word == "execute":
            to, rest = rest.split(" ", 1)
            node, end = json.JSONDecoder().raw_decode(rest)
            self.task = asyncio.ensure_future(self.execute(to, node, json.loads(rest[end:])))
        elif word == "add":
            self.task = asyncio.ensure_future(self.update_roster(rest, name="proxy"))
        elif word == "remove":
            self.task = asyncio.ensure_future(self.del_roster_item(rest))
        elif word == "quit":
            self.disconnect()


async def commands(client):
    reader = asyncio.StreamReader()
    await asyncio.get_event_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while True:
        line = await reader.readline()
        if not line:
            return
        client.line(line.decode())


client = Client()
client.connect(None if host == "-" else (host, int(port)), use_ssl=entry == "direct", disable_starttls=entry == "plain", force_starttls=entry == "starttls")
task = asyncio.get_event_loop().create_task(commands(client))  # kept, or it is collected
client.process(forever=True)
