"""Reads stanzas as a client on slixmpp does, poezio above all: the library's own stream
takes them apart, with every plugin that it loads registered, and its events and stanza
classes say what there is to show. Lines of JSON in and out: see readers.go."""

import asyncio
import json
import logging
import sys

import slixmpp
from slixmpp.jid import JID
from slixmpp.plugins import __all__ as PLUGINS
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXMLMask
from slixmpp.xmlstream.stanzabase import ElementBase

HEADER = ("<stream:stream xmlns='jabber:client' "
          "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>")
OWN = 'alice@example.org'
ARCHIVE = 'reader archive'

# The parts of a message that say something, by the names of the plugins' elements.
SAYING = ['oob', 'oob_transfer', 'form', 'confirm', 'spoiler', 'reactions', 'security_label', 'headers', 'apply_to',
          'retracted', 'jingle_propose', 'jingle_reject', 'response', 'action', 'json', 'bookmarks', 'captcha', 'register', 'command']
# What an answer, or an event of a person's own node, says about somebody.
ABOUT = ['vcard_temp', 'software_version', 'disco_info', 'disco_items', 'last_activity', 'entity_time', 'command', 'register',
         'search', 'form', 'mood', 'activity', 'tune', 'gaming', 'geoloc', 'reach', 'private', 'mucadmin_query', 'mucowner_query',
         'user', 'entry', 'oob_transfer', 'privacy', 'blocklist', 'mix', 'channel', 'security_label_catalog']
# Parts that name things for programs, not for people.
HIDDEN = {'lang', 'id', 'type', 'jid', 'from', 'to', 'node', 'sessionid', 'var', 'xmlns', 'ver', 'hash', 'features', 'sha1'}


class Errors(logging.Handler):
    def __init__(self):
        logging.Handler.__init__(self, logging.ERROR)
        self.texts = []

    def emit(self, record):
        text = record.getMessage()
        if record.exc_info:
            text += f' {record.exc_info[1]!r}'
        self.texts.append(text)


def texts(value):
    """Every text in what a stanza class gives."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, bytes):
        return texts(value.decode('utf-8', 'replace'))
    if isinstance(value, ElementBase):
        return texts(part(value))
    if isinstance(value, dict):
        return [t for k, v in value.items() if not isinstance(k, str) or k.split('|')[0] not in HIDDEN for t in texts(v)]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [t for v in value for t in texts(v)]
    return []


def part(stanza):
    """The values of an element, as far as its class gives them."""
    found = {}
    for name in list(stanza.interfaces) + list(stanza.bool_interfaces):
        try:
            found[name] = stanza[name]
        except Exception:
            continue
    for (name, lang), plugin in list(stanza.plugins.items()):
        found[name + '|' + str(lang)] = part(plugin)
    found['substanzas'] = [part(s) for s in stanza.iterables]
    return found


class Client(slixmpp.ClientXMPP):
    def __init__(self, loop):
        slixmpp.ClientXMPP.__init__(self, OWN + '/c', 'secret')
        self.loop = loop
        for name in PLUGINS:
            try:
                self.register_plugin(name)
            except Exception:
                continue  # of a library that is not there
        for name in ('xep_0048', 'xep_0091', 'xep_0095', 'xep_0096'):
            self.register_plugin(name)
        self.boundjid = JID(OWN + '/c')
        self.event('session_bind', self.boundjid)  # some plugins begin only then

    def send(self, *args, **kwargs):
        pass

    def send_raw(self, *args, **kwargs):
        pass

    def start_stream_handler(self, xml):
        pass


class Reader:
    def __init__(self, loop):
        self.loop, self.shown, self.room = loop, [], ''
        self.errors = Errors()
        logging.getLogger('slixmpp').addHandler(self.errors)
        logging.getLogger('slixmpp').propagate = False
        logging.getLogger('asyncio').addHandler(self.errors)
        logging.getLogger('asyncio').propagate = False
        self.xmpp = Client(loop)
        for event, handler in (
                ('message', self.message), ('groupchat_message', self.groupchat), ('groupchat_subject', self.subject),
                ('groupchat_message_error', self.error), ('message_error', self.error),
                ('carbon_received', self.received), ('carbon_sent', self.sent),
                ('groupchat_invite', self.invite), ('groupchat_decline', self.decline), ('groupchat_direct_invite', self.direct),
                ('http_confirm', self.parts), ('message_xform', self.parts), ('attention', self.attention), ('reactions', self.reactions),
                ('moderated_message', self.moderated), ('jingle_message_propose', self.parts),
                ('pubsub_publish', self.published), ('presence', self.presence), ('roster_update', self.roster)):
            self.xmpp.add_event_handler(event, handler)
        # An archive's results as the plugin collects them, for a query of the number q.
        _, mask = self.xmpp['xep_0313']._pre_mam_retrieve(None, None, None, None, None)
        mask['mam_result']['queryid'] = 'q'
        self.xmpp.register_handler(Callback(ARCHIVE, MatchXMLMask(str(mask)), self.archive))
        self.xmpp.register_handler(Callback('reader iq', MatchXMLMask('<iq xmlns="jabber:client"/>'), self.iq))

    def show(self, as_, from_, *values):
        for value in values:
            for text in texts(value):
                one = {'as': as_, 'from': str(from_ or ''), 'text': text}
                if one not in self.shown:
                    self.shown.append(one)

    def read(self, xml, room):
        self.shown, self.errors.texts, self.room = [], [], room
        self.xmpp.plugin['xep_0045'].rooms = {JID(room): {}} if room else {}
        self.xmpp.plugin['xep_0045'].our_nicks = {JID(room): 'alice'} if room else {}
        self.loop.run_until_complete(self.feed(xml))
        return self.shown, '; '.join(self.errors.texts)

    async def feed(self, xml):
        self.xmpp.init_parser()
        self.xmpp.data_received(HEADER.encode())
        self.xmpp.data_received(xml.encode())
        for _ in range(5):  # the handlers that the loop runs later
            await asyncio.sleep(0)

    def said(self, as_, m):
        """poezio/core/handlers.py, on_normal_message, and what other clients show too"""
        from_ = m['from']
        if m['type'] == 'error':
            self.error(m)
            return
        self.show(as_, from_, m['body'], m['subject'])
        if not m['body'] and m.get_plugin('eme', check=True) is not None:
            self.show(as_, from_, m['eme']['name'])
        html = m.get_plugin('html', check=True)
        if html is not None:
            body = html.xml.find('{http://www.w3.org/1999/xhtml}body')
            if body is not None:
                self.show(as_, from_, ''.join(body.itertext()))
        nick = m.get_plugin('nick', check=True)
        if nick is not None:
            self.show('name', from_, nick['nick'])
        self.parts(m, as_)

    def parts(self, m, as_='message'):
        for name in SAYING:
            try:
                plugin = m.get_plugin(name, check=True)
            except Exception:
                continue
            if plugin is not None:
                self.show(as_, m['from'], plugin)
        for sub in m.iterables:
            self.show(as_, m['from'], sub)

    def message(self, m):
        # A room's messages and invitations come by events of their own.
        if m['type'] != 'groupchat' and not m.match('message/muc/invite'):
            self.said('message', m)

    def groupchat(self, m):
        if m['from'].bare == self.room:
            self.said('message', m)

    def subject(self, m):
        if m['from'].bare == self.room:
            self.show('message', m['from'], m['subject'])

    def received(self, m):
        self.said('message', m['carbon_received'])

    def sent(self, m):
        self.said('own', m['carbon_sent'])

    def archive(self, m):
        stanza = m['mam_result']['forwarded']['stanza']
        if not isinstance(stanza, slixmpp.Message):
            return
        self.said('own' if stanza['from'].bare == OWN else 'message', stanza)

    def error(self, m):
        self.show('message', m['from'], m['error']['text'], m['error']['gone'], m['error']['redirect'])

    def invite(self, m):
        self.show('message', m['muc']['invite']['from'], m['muc']['invite']['reason'])

    def decline(self, m):
        self.show('message', m['muc']['decline']['from'], m['muc']['decline']['reason'])

    def direct(self, m):
        self.show('message', m['from'], m['groupchat_invite']['reason'])

    def reactions(self, m):
        self.show('message', m['from'], m['reactions']['values'])

    def moderated(self, m):
        self.show('message', m['from'], m['apply_to']['moderated']['reason'])

    def attention(self, m):
        self.show('message', m['from'], 'attention')

    def published(self, m):
        for item in m['pubsub_event']['items'].iterables:  # the library iterates over it itself
            nick = item.get_plugin('nick', check=True)
            if nick is not None:
                self.show('name', m['from'], nick['nick'])
            self.about('info', m['from'], item)

    def presence(self, p):
        if p['type'] == 'error':
            self.error(p)
            return
        asks = p['type'] in ('subscribe', 'subscribed', 'unsubscribe', 'unsubscribed')
        self.show('message' if asks else 'presence', p['from'], p['status'])
        nick = p.get_plugin('nick', check=True)
        if nick is not None:
            self.show('name', p['from'], nick['nick'])
        if p.get_plugin('muc', check=True) is not None and p['from'].bare == self.room:
            item = p['muc']['item']
            self.show('name', p['from'], p['muc']['item_nick'], item['nick'])
            self.show('message', p['from'], item['reason'], item['actor']['nick'], p['muc']['destroy']['reason'])

    def roster(self, iq):
        for jid, item in iq['roster']['items'].items():
            self.show('name', jid, item['name'], item['groups'])

    def about(self, as_, from_, stanza):
        for name in ABOUT:
            try:
                plugin = stanza.get_plugin(name, check=True)
            except Exception:
                continue
            if plugin is not None:
                self.show(as_, from_, plugin)

    def iq(self, iq):
        """An answer counts by its number, and every question is open."""
        if iq['type'] == 'error':
            self.show('info', iq['from'], iq['error']['text'])
        if iq['type'] == 'result':
            if iq.get_plugin('roster', check=True) is not None:
                self.roster(iq)
            self.about('info', iq['from'], iq)
            private = iq.get_plugin('private', check=True)
            if private is not None and private.get_plugin('bookmarks', check=True) is not None:
                self.show('name', iq['from'], [c['name'] for c in private['bookmarks']['conferences']])
            pubsub = iq.get_plugin('pubsub', check=True)
            for item in (pubsub['items'].iterables if pubsub is not None else []):
                nick = item.get_plugin('nick', check=True)
                if nick is not None:
                    self.show('name', iq['from'], nick['nick'])
                self.about('info', iq['from'], item)
        elif iq['type'] in ('get', 'set') and iq.get_plugin('confirm', check=True) is not None:
            self.show('message', iq['from'], iq['confirm'])
        elif iq['type'] == 'set':
            for name in ('oob_transfer', 'si', 'file'):
                plugin = iq.get_plugin(name, check=True)
                if plugin is not None:
                    self.show('message', iq['from'], plugin)


out, sys.stdout = sys.stdout, sys.stderr  # a plugin prints
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
reader = Reader(loop)
for line in sys.stdin:
    request = json.loads(line)
    shown, error = [], ''
    try:
        shown, error = reader.read(request['xml'], request.get('room', ''))
    except Exception as e:
        shown, error = reader.shown, repr(e)
    print(json.dumps({'n': request['n'], 'shown': shown, 'error': error}), file=out, flush=True)
