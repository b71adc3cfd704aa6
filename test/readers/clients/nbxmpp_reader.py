"""Reads stanzas as Gajim does: nbxmpp's own dispatcher and modules take them apart, and
what Gajim's modules make of the properties is repeated here. Lines of JSON in and out:
see readers.go."""

import dataclasses
import json
import logging
import sys

from nbxmpp.dispatcher import StanzaDispatcher
from nbxmpp.errors import MalformedStanzaError
from nbxmpp.namespaces import Namespace
from nbxmpp.protocol import JID
from nbxmpp.simplexml import Node
from nbxmpp.structs import RosterData
from nbxmpp.structs import StanzaHandler

HEADER = ("<stream:stream xmlns='jabber:client' "
          "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>")
OWN = JID.from_string('alice@example.org/c')


class Errors(logging.Handler):
    """What a handler throws is only logged, and the stanza then dropped."""

    def __init__(self):
        logging.Handler.__init__(self, logging.ERROR)
        self.texts = []

    def emit(self, record):
        text = record.getMessage()
        if record.exc_info:
            text += f' {record.exc_info[1]!r}'
        self.texts.append(text)


class Client:
    """As much of a client as the modules ask for. It sends nothing: it remembers the
    requests, so that an answer can be given to each of them."""

    log_context = 'reader'
    is_websocket = False
    domain = 'example.org'
    username = 'alice'
    http_session = None

    def __init__(self):
        self._smacks = self.features = self
        self.tasks = set()
        self.answer_id = None
        self._dispatcher = StanzaDispatcher(self)

    def count_incoming(self, _name):
        pass

    def has_roster_version(self):
        return False

    def get_bound_jid(self):
        return OWN

    def get_module(self, name):
        return self._dispatcher.get_module(name)

    def send_stanza(self, _stanza, callback=None, timeout=None, user_data=None):
        if callback is not None:
            self._dispatcher.add_callback_for_id(self.answer_id, callback, None, user_data)
        return self.answer_id

    def add_task(self, task):
        self.tasks.add(task)

    def remove_task(self, task, _context):
        self.tasks.discard(task)


def texts(value, seen=None):
    """Every text in what a module made of something; nodes that it did not look into
    are not shown."""
    seen = set() if seen is None else seen
    if isinstance(value, bytes):
        value = value.decode('utf-8', 'replace')
    if isinstance(value, str):
        return [value] if value.strip() else []
    if value is None or isinstance(value, (int, float, JID)) or id(value) in seen:
        return []
    seen.add(id(value))
    if isinstance(value, Node):
        # A form's fields are nodes; the others are only carried along.
        if value.getNamespace() == Namespace.DATA or value.getName() == 'field':
            return form_texts(value)
        return []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [t for v in value for t in texts(v, seen)]
    if dataclasses.is_dataclass(value):
        return texts([getattr(value, f.name) for f in dataclasses.fields(value)], seen)
    return texts(list(vars(value).values()), seen) if hasattr(value, '__dict__') else []


def form_texts(form):
    """What a form's dialogue shows: everything but the fields' names."""
    found = []
    for node in [form, *form.getChildren()]:
        if node.getName() == 'field' or node is form:
            found += [node.getAttr('label')]
        for child in node.getChildren():
            if child.getName() in ('title', 'instructions', 'desc', 'value', 'text'):
                found.append(child.getData())
            elif child.getName() == 'option':
                found += [child.getAttr('label'), child.getTagData('value')]
            elif child.getName() == 'field' and node is not form:  # of an item, of reported
                found += [child.getAttr('label'), child.getTagData('value')]
    return [t for t in found if t]


class Reader:
    def __init__(self):
        self.errors = Errors()
        logging.getLogger('nbxmpp').addHandler(self.errors)
        logging.getLogger('nbxmpp').propagate = False
        self.client = Client()
        self.dispatcher = self.client._dispatcher
        self.dispatcher.subscribe('parsing-error', self.broken)
        for name, callback in (('message', self.message), ('presence', self.presence), ('iq', self.iq)):
            self.dispatcher.register_handler(StanzaHandler(name=name, callback=callback, priority=50))

    def broken(self, _dispatcher, _signal, text):
        self.errors.texts.append(text)

    def show(self, as_, from_, *values):
        for value in values:
            for text in texts(value):
                one = {'as': as_, 'from': str(from_ or ''), 'text': text}
                if one not in self.shown:
                    self.shown.append(one)

    def read(self, xml, room):
        self.shown, self.errors.texts, self.room = [], [], room
        self.feed(xml)
        if xml.lstrip().startswith('<iq'):
            self.answers(xml)
        return self.shown, '; '.join(self.errors.texts)

    def feed(self, xml):
        self.dispatcher.reset_parser()
        self.dispatcher.process_data(HEADER)
        self.dispatcher.process_data(xml)

    def message(self, _client, stanza, p):
        # Gajim 1.7 does not show all of these; what nbxmpp makes of them, a later one does.
        if p.mam is not None:
            # gajim/common/modules/mam.py: the archive asked, and the query.
            if str(p.mam.archive) != OWN.bare or p.mam.query_id != 'q':
                return
            if p.type.is_groupchat and not p.mam.archive.bare_match(p.jid):
                return
        own = p.is_sent_carbon or (p.is_mam_message and OWN.bare_match(p.from_))
        as_ = 'own' if own else 'message'
        if p.pubsub:
            self.event(p)
            return
        if p.type.is_groupchat and str(p.jid.bare) != self.room:
            return  # there is no window for it
        if p.type.is_error:
            self.error(p.from_, p.error)
            return
        self.show('name', p.from_, p.nickname, p.muc_user and p.muc_user.nick)
        rosterx = stanza.getTag('x', namespace=Namespace.ROSTERX)
        if rosterx is not None:
            self.rosterx(p.jid, rosterx)
            return
        for said in (p.muc_invite, p.muc_decline):
            if said is not None:
                self.show('message', said.from_ or p.jid, said.reason)
                return
        if p.muc_subject is not None:
            self.show(as_, p.from_, p.muc_subject.text)
            return
        if p.http_auth is not None:
            self.show(as_, p.from_, p.http_auth.method, p.http_auth.url, p.http_auth.body)
        self.show(as_, p.from_, p.captcha and p.captcha.form, p.voice_request and (p.voice_request.nick, p.voice_request.form))
        self.show(as_, p.from_, p.moderation and p.moderation.reason)
        body = p.body
        if p.eme is not None and not p.is_encrypted:
            body = f'encrypted with {p.eme.name}'  # gajim/common/modules/util.py
        self.show(as_, p.from_, body, p.subject, p.forms)
        if p.xhtml is not None:
            self.show(as_, p.from_, text_of(p.xhtml.get_body('en')))
        if p.oob is not None:
            self.show(as_, p.from_, p.oob.url, p.oob.desc)
        if p.security_label is not None and p.security_label.displaymarking is not None:
            self.show(as_, p.from_, p.security_label.displaymarking.name)
        if p.reactions is not None:
            self.show(as_, p.from_, p.reactions.emojis)
        if p.attention:
            self.show(as_, p.from_, 'attention')

    def event(self, p):
        event = p.pubsub_event
        if event is None or event.data is None:
            return
        name = event.node == Namespace.NICK or 'bookmarks' in (event.node or '')
        self.show('name' if name else 'info', p.from_, event.data)

    def error(self, from_, error):
        # gajim/common/helpers.py, to_user_string
        self.show('message', from_, error.get_text('en') or f'{error.condition} {error.app_condition or ""}')

    def presence(self, _client, stanza, p):
        if p.type.is_error:
            self.error(p.jid, p.error)
            return
        as_ = 'message' if p.type.is_subscribe else 'presence'
        self.show(as_, p.jid, p.status)
        self.show('name', p.jid, p.nickname)
        if p.from_muc and str(p.jid.bare) == self.room:
            if p.muc_user is not None:
                self.show('message', p.jid, p.muc_user.reason, p.muc_user.actor)
                self.show('name', p.jid, p.muc_user.nick)
            if p.muc_destroyed is not None:
                self.show('message', p.jid, p.muc_destroyed.reason)

    def iq(self, _client, stanza, p):
        if getattr(p, 'roster', None) is not None:
            item = p.roster.item
            self.show('name', item.jid, item.name, item.groups)
        if getattr(p, 'http_auth', None) is not None:
            self.show('message', stanza.getFrom(), p.http_auth.method, p.http_auth.url, p.http_auth.body)
        if stanza.getType() == 'set':
            rosterx = stanza.getTag('x', namespace=Namespace.ROSTERX)
            if rosterx is not None:
                self.rosterx(stanza.getFrom(), rosterx)
            self.jingle(stanza)

    def rosterx(self, jid, rosterx):
        # gajim/common/modules/roster_item_exchange.py
        for item in rosterx.getChildren():
            self.show('message', jid, item.getAttr('name'), [g.getData() for g in item.getTags('group')])

    def jingle(self, stanza):
        # gajim/common/jingle_ft.py: a file that is offered
        jingle = stanza.getTag('jingle')
        if jingle is None:
            return
        for content in jingle.getTags('content'):
            description = content.getTag('description')
            for file in (description.getTags('file') if description is not None else []):
                self.show('message', stanza.getFrom(), file.getTagData('name'), file.getTagData('desc'))
        reason = jingle.getTag('reason')
        if reason is not None:
            self.show('message', stanza.getFrom(), reason.getTagData('text'))

    def answers(self, xml):
        """An answer is shown if it was asked for: every question that Gajim may have
        asked is open, one after the other."""
        try:
            stanza = Node(node=xml)
        except Exception:
            return  # it has been said already
        if stanza.getAttr('type') not in ('result', 'error'):
            return
        self.client.answer_id = stanza.getAttr('id')
        try:
            jid = JID.from_string(stanza.getAttr('from') or OWN.bare)
        except Exception:
            return
        node = Namespace.NICK
        pubsub = stanza.getTag('pubsub')
        if pubsub is not None and pubsub.getTag('items') is not None:
            node = pubsub.getTag('items').getAttr('node') or node
        m = self.client.get_module
        questions = [
            ('name', lambda: m('Roster').request_roster()),
            ('info', lambda: m('VCardTemp').request_vcard(jid)),
            ('info', lambda: m('VCard4').request_vcard(jid)),
            ('info', lambda: m('SoftwareVersion').request_software_version(jid)),
            ('info', lambda: m('Discovery').disco_info(jid)),
            ('info', lambda: m('Discovery').disco_items(jid)),
            ('info', lambda: m('LastActivity').request_last_activity(jid)),
            ('info', lambda: m('EntityTime').request_entity_time(jid)),
            ('info', lambda: m('AdHoc').request_command_list(jid)),
            ('info', lambda: m('AdHoc').execute_command(Command(jid))),
            ('info', lambda: m('Register').request_register_form(jid)),
            ('info', lambda: m('MUC').request_config(jid)),
            ('info', lambda: m('Annotations').request_annotations()),
            ('name', lambda: m('Delimiter').request_delimiter()),
            ('name', lambda: m('PrivateBookmarks').request_bookmarks()),
            ('name', lambda: m('PEPBookmarks').request_bookmarks()),
            ('name', lambda: m('NativeBookmarks').request_bookmarks()),
        ]
        errors = self.errors.texts
        for as_, ask in questions:
            results = []

            def done(task):
                results.append(task.get_result())
            self.errors.texts = []
            try:
                task = ask()
                if not task.state.is_running:
                    continue
                task.add_done_callback(done, weak=False)
                self.feed(xml)
                if task.state.is_running:
                    task.cancel(invoke_callbacks=False)
            except Exception:
                continue
            finally:
                self.dispatcher.clear_iq_callbacks()
            for result in results:
                if hasattr(result, 'get_text'):
                    # An error that the other side sent, not nbxmpp's own of an answer to
                    # another question.
                    if not isinstance(result, MalformedStanzaError):
                        self.show('info', jid, result.get_text('en'))
                elif isinstance(result, RosterData):
                    for item in result.items or []:
                        self.show('name', item.jid, item.name, item.groups)
                elif not isinstance(result, Exception):
                    self.show(as_, jid, result)
        self.errors.texts = errors


class Command:
    def __init__(self, jid):
        self.jid, self.node, self.sessionid, self.default = jid, 'n', None, None


def text_of(markup):
    node = Node(node=markup)
    return all_text(node)


def all_text(node):
    found = ''
    for i, data in enumerate(node.data):
        found += data
        if i < len(node.kids):
            found += all_text(node.kids[i])
    for kid in node.kids[len(node.data):]:
        found += all_text(kid)
    return found


reader = Reader()
for line in sys.stdin:
    request = json.loads(line)
    shown, error = [], ''
    try:
        shown, error = reader.read(request['xml'], request.get('room', ''))
    except Exception as e:
        shown, error = reader.shown, repr(e)
    print(json.dumps({'n': request['n'], 'shown': shown, 'error': error}), flush=True)
