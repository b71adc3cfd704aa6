package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"mellium.im/xmpp/jid"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/proxy/control"
	"otrproxy/stanza"
)

// commandWord begins a command in a chat. Such a body never leaves the machine.
const commandWord = "!otr"

// command finds a command in a message's body.
func command(root stanza.Element) (line string, ok bool) {
	for el := range root.Children() {
		if !el.Is(stanza.NSClient, "body") {
			continue
		}
		// Most texts begin with a letter: no need to decode them.
		if raw := bytes.TrimLeft(el.InnerRaw(), " \t\r\n"); len(raw) == 0 || raw[0] != commandWord[0] && raw[0] != '&' && raw[0] != '<' {
			continue
		}
		if rest, found := strings.CutPrefix(strings.TrimLeft(el.Text(), " \t\r\n"), commandWord); found {
			return rest, true
		}
	}
	return "", false
}

// command runs a command written in a conversation.
func (s *session) command(line, contact string) {
	if strings.TrimSpace(line) == "" {
		line = "help"
	}
	s.run(strings.TrimLeft(line, " "), contact, contact)
}

// run answers a command in the conversation with whom it was written to.
func (s *session) run(line, contact, where string) {
	cmd, args, err := s.p.commands.Find(line, true)
	var reply control.Reply
	if err == nil {
		ctx, cancel := context.WithTimeout(s.p.ctx, 10*time.Second)
		defer cancel()
		reply, err = cmd.Run(ctx, control.Call{Account: s.jid, Contact: contact, Args: args})
	}
	text := reply.Text
	if err != nil {
		text = sentence(err)
	}
	if text != "" {
		s.Notice(where, text)
	}
}

func sentence(err error) string {
	t := err.Error()
	if t == "" {
		return t
	}
	return strings.ToUpper(t[:1]) + t[1:] + "."
}

// service is what a client sends to the proxy itself. None of it goes upstream.
func (s *session) service(st *stanza.Stanza, local string) {
	root := st.Root()
	switch local {
	case "message":
		if body, ok := root.Child(stanza.NSClient, "body"); ok && root.Attr("type") != "error" {
			line := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(body.Text()), commandWord))
			if line == "" {
				line = "help"
			}
			s.run(line, "", serviceJID)
		}
	case "iq":
		typ := root.Attr("type")
		if typ != "get" && typ != "set" {
			return
		}
		if _, ok := root.Child("http://jabber.org/protocol/disco#info", "query"); ok && typ == "get" {
			s.client.build(func(b []byte) []byte {
				b = append(b, "<iq type='result' from='"+serviceJID+"'"...)
				b = stanza.AppendAttr(stanza.AppendAttr(b, "to", s.full()), "id", root.Attr("id"))
				return append(b, "><query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' type='bot' name='otrproxy'/><feature var='http://jabber.org/protocol/disco#info'/></query></iq>"...)
			})
			s.client.kick()
			return
		}
		s.refuse(root, stanza.Error{Type: "cancel", Condition: "service-unavailable"})
	}
}

// asked is what a person reads who has asked a contact to compare a secret.
func asked(c control.Call, err error) (control.Reply, error) {
	if err != nil {
		return control.Reply{}, err
	}
	return control.Reply{Text: "Asked " + c.Contact + "; their program shows them how to answer."}, nil
}

// Words is the table without a proxy behind it: names, usage and help.
func Words() control.Table { return (&Proxy{}).table() }

// table is the one table of commands.
func (p *Proxy) table() control.Table {
	// own finds the account a chat command is about.
	own := func(f func(a *otrlayer.Account, o otrlayer.Outlet, c control.Call) (control.Reply, error)) func(context.Context, control.Call) (control.Reply, error) {
		return func(_ context.Context, c control.Call) (control.Reply, error) {
			a, err := p.account(c.Account)
			if err != nil {
				return control.Reply{}, err
			}
			if c.Contact == "" {
				if c.Contact, c.Args, _ = strings.Cut(strings.TrimSpace(c.Args), " "); c.Contact == "" {
					return control.Reply{}, errors.New("name a contact, or write the command in the conversation with them")
				}
				if c.Contact, err = bareJID(c.Contact); err != nil {
					return control.Reply{}, err
				}
			}
			return f(a, p.outlet(c.Account), c)
		}
	}
	// of is the same for the administrator, who names the account as well.
	of := func(f func(a *otrlayer.Account, o otrlayer.Outlet, c control.Call) (control.Reply, error)) func(context.Context, control.Call) (control.Reply, error) {
		return func(_ context.Context, c control.Call) (control.Reply, error) {
			names := strings.Fields(c.Args)
			if len(names) != 2 {
				return control.Reply{}, fmt.Errorf("%w: an account and a contact are needed", control.ErrUsage)
			}
			account, err := bareJID(names[0])
			if err != nil {
				return control.Reply{}, err
			}
			contact, err := bareJID(names[1])
			if err != nil {
				return control.Reply{}, err
			}
			for _, a := range p.open() {
				if a.JID() == account {
					c.Account, c.Contact, c.Args = account, contact, ""
					return f(a, p.outlet(c.Account), c)
				}
			}
			return control.Reply{}, fmt.Errorf("nobody has logged in as %s since otrproxy was started", account)
		}
	}
	var t control.Table
	t = control.Table{
		{Name: "help", Help: "lists the commands", Chat: true, Admin: true, Run: func(_ context.Context, c control.Call) (control.Reply, error) {
			if c.Account != "" {
				return control.Reply{Text: "Commands, none of which leaves this machine:\n" + t.Help(true, commandWord+" ")}, nil
			}
			return control.Reply{Text: t.Help(false, "otrproxy ")}, nil
		}},
		{Name: "status", Help: "who is connected, how well the server is known, and how private each conversation is", Chat: true, Admin: true, Run: p.status},
		{Name: "start", Help: "asks the contact for a private conversation, or refreshes it", Chat: true,
			Run: own(func(a *otrlayer.Account, o otrlayer.Outlet, c control.Call) (control.Reply, error) {
				a.Start(o, c.Contact)
				return control.Reply{}, nil
			})},
		{Name: "end", Help: "ends the private conversation", Chat: true,
			Run: own(func(a *otrlayer.Account, o otrlayer.Outlet, c control.Call) (control.Reply, error) {
				a.End(o, c.Contact)
				return control.Reply{}, nil
			})},
		{Name: "verify", Args: "FINGERPRINT", Help: "says that you compared the contact's fingerprint with them", Chat: true,
			Run: own(func(a *otrlayer.Account, _ otrlayer.Outlet, c control.Call) (control.Reply, error) {
				fp, err := otrlayer.ParseFingerprint(c.Args)
				if err != nil {
					return control.Reply{}, err
				}
				ok, err := a.Verify(c.Contact, fp)
				if err != nil {
					return control.Reply{}, err
				}
				if !ok {
					return control.Reply{}, fmt.Errorf("this is NOT the fingerprint in use with %s (%s); do not trust the conversation until you know why", c.Contact, a.Conversation(c.Contact).Fingerprint)
				}
				return control.Reply{Text: "The key of " + c.Contact + " is verified."}, nil
			})},
		{Name: "smp ask", Args: "QUESTION | ANSWER", Help: "asks the contact a question only they can answer; the right answer verifies their key", Chat: true,
			Run: own(func(a *otrlayer.Account, o otrlayer.Outlet, c control.Call) (control.Reply, error) {
				at := strings.LastIndex(c.Args, " | ")
				if at < 0 || strings.TrimSpace(c.Args[:at]) == "" || c.Args[at+3:] == "" {
					return control.Reply{}, errors.New("write the question, then \" | \", then the answer you expect: !otr smp ask Where did we meet? | Prague")
				}
				question := strings.TrimSpace(c.Args[:at])
				return asked(c, a.Compare(o, c.Contact, &question, c.Args[at+3:]))
			})},
		{Name: "smp start", Args: "SECRET", Help: "asks the contact for a secret you two share; the same one verifies their key", Chat: true,
			Run: own(func(a *otrlayer.Account, o otrlayer.Outlet, c control.Call) (control.Reply, error) {
				if c.Args == "" {
					return control.Reply{}, errors.New("write the secret you two share: !otr smp start SECRET")
				}
				return asked(c, a.Compare(o, c.Contact, nil, c.Args))
			})},
		{Name: "smp answer", Args: "SECRET", Help: "answers the contact's question, or names the secret they ask for", Chat: true,
			Run: own(func(a *otrlayer.Account, o otrlayer.Outlet, c control.Call) (control.Reply, error) {
				if c.Args == "" {
					return control.Reply{}, errors.New("write the answer: !otr smp answer SECRET")
				}
				return control.Reply{}, a.Answer(o, c.Contact, c.Args)
			})},
		{Name: "smp abort", Help: "gives up comparing a secret", Chat: true,
			Run: own(func(a *otrlayer.Account, o otrlayer.Outlet, c control.Call) (control.Reply, error) {
				if err := a.AbortComparing(o, c.Contact); err != nil {
					return control.Reply{}, err
				}
				return control.Reply{Text: "The comparison of secrets was given up."}, nil
			})},
		{Name: "held", Help: "the messages that wait, and for what", Chat: true,
			Run: own(func(a *otrlayer.Account, _ otrlayer.Outlet, c control.Call) (control.Reply, error) {
				lines := heldBy(a, c.Contact)
				return control.Reply{Text: heldText(lines), Data: lines}, nil
			})},
		{Name: "send", Help: "accepts the contact's changed key and sends what waits, or asks them again", Chat: true, Run: own(release)},
		{Name: "drop", Help: "takes back the messages that wait", Chat: true, Run: own(drop)},
		{Name: "held list", Help: "the messages that wait for a private conversation", Admin: true, Run: func(context.Context, control.Call) (control.Reply, error) {
			lines := []HeldLine{}
			for _, a := range p.open() {
				lines = append(lines, heldBy(a, "")...)
			}
			return control.Reply{Text: heldText(lines), Data: lines}, nil
		}},
		{Name: "held send", Args: "ACCOUNT CONTACT", Help: "accepts a contact's changed key and sends what waits, or asks them again", Admin: true, Run: of(release)},
		{Name: "held drop", Args: "ACCOUNT CONTACT", Help: "gives back the messages that wait for a contact", Admin: true, Run: of(drop)},
		{Name: "reload", Help: "re-reads the configuration file; on an error the old one stays in force", Admin: true, Run: func(context.Context, control.Call) (control.Reply, error) {
			file := p.Config().File
			if file == "" {
				return control.Reply{}, errors.New("this proxy runs without a configuration file")
			}
			cfg, err := config.Load(file)
			if err == nil {
				err = p.Reload(cfg)
			}
			if err != nil {
				return control.Reply{}, err
			}
			return control.Reply{Text: file + " is in force"}, nil
		}},
		{Name: "pin list", Help: "the certificates and keys servers are held to", Admin: true, Run: func(context.Context, control.Call) (control.Reply, error) {
			lines := p.pins.list(p.Config())
			var b strings.Builder
			for _, l := range lines {
				fmt.Fprintf(&b, "%s %s (%s, %s)\n", l.Domain, l.Pin, l.Slot, l.Source)
			}
			if len(lines) == 0 {
				b.WriteString("no pins yet\n")
				lines = []PinLine{}
			}
			return control.Reply{Text: strings.TrimRight(b.String(), "\n"), Data: lines}, nil
		}},
		{Name: "pin add", Args: "DOMAIN PIN", Help: "trusts a server's certificate (sha256:..) or key (spki-sha256:..)", Admin: true, Run: func(_ context.Context, c control.Call) (control.Reply, error) {
			domain, pin, err := pinArgs(c.Args)
			if err != nil {
				return control.Reply{}, err
			}
			if err := p.pins.add(domain, pin); err != nil {
				return control.Reply{}, err
			}
			p.forgive()
			return control.Reply{Text: domain + " is held to " + pin.String()}, nil
		}},
		{Name: "pin remove", Args: "DOMAIN PIN", Help: "forgets a pin that was added or remembered", Admin: true, Run: func(_ context.Context, c control.Call) (control.Reply, error) {
			domain, pin, err := pinArgs(c.Args)
			if err != nil {
				return control.Reply{}, err
			}
			ok, err := p.pins.remove(domain, pin)
			if err != nil {
				return control.Reply{}, err
			}
			if !ok {
				return control.Reply{}, errors.New("there is no such pin; those in the configuration are removed there (otrproxy pin list)")
			}
			p.forgive()
			return control.Reply{Text: "removed"}, nil
		}},
	}
	return t
}

// bareJID is an address as a person writes it, in the form in which it is known.
func bareJID(s string) (string, error) {
	j, err := jid.Parse(s)
	if err != nil {
		return "", fmt.Errorf("%q is not an address, such as bob@example.org", s)
	}
	return j.Bare().String(), nil
}

// release accepts a changed key, or asks again.
func release(a *otrlayer.Account, _ otrlayer.Outlet, c control.Call) (control.Reply, error) {
	ok, err := a.Accept(c.Contact)
	if err != nil {
		return control.Reply{}, err
	}
	if ok {
		return control.Reply{Text: "The new key of " + c.Contact + " is accepted, not verified."}, nil
	}
	n := a.Ask(c.Contact)
	if n == 0 {
		return control.Reply{}, fmt.Errorf("nothing waits for %s, and no changed key of theirs waits for a decision", c.Contact)
	}
	return control.Reply{Text: fmt.Sprintf("%d messages wait for %s; they go as soon as the conversation is private.", n, c.Contact)}, nil
}

// drop gives back what waits for a contact.
func drop(a *otrlayer.Account, _ otrlayer.Outlet, c control.Call) (control.Reply, error) {
	return control.Reply{Text: fmt.Sprintf("%d messages taken back.", a.Drop(c.Contact))}, nil
}

// A HeldLine is a message that waits, as held list shows it.
type HeldLine struct {
	Account string    `json:"account"`
	Contact string    `json:"contact"`
	ID      string    `json:"id"`
	Since   time.Time `json:"since"`
	Expires time.Time `json:"expires"`
	Cause   string    `json:"cause"`
}

// heldBy lists what waits for a contact, or for all.
func heldBy(a *otrlayer.Account, contact string) []HeldLine {
	lines := []HeldLine{}
	for _, m := range a.Held() {
		if contact == "" || m.Contact == contact {
			lines = append(lines, HeldLine{Account: a.JID(), Contact: m.Contact, ID: m.ID, Since: m.Since, Expires: m.Expires, Cause: string(m.Why)})
		}
	}
	return lines
}

// heldReasons are what messages wait for.
var heldReasons = map[string]string{
	string(otrlayer.CauseExpired):    "a private conversation",
	string(otrlayer.CauseKeyChanged): "your decision about their changed key",
	string(otrlayer.CauseUnverified): "their key to be verified",
}

func heldText(lines []HeldLine) string {
	if len(lines) == 0 {
		return "nothing waits"
	}
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s to %s: waits for %s since %s, comes back at %s", l.Account, l.Contact, heldReasons[l.Cause], l.Since.Format(time.TimeOnly), l.Expires.Format(time.TimeOnly))
	}
	return b.String()
}

func pinArgs(args string) (domain string, pin config.Pin, err error) {
	f := strings.Fields(args)
	if len(f) != 2 {
		return "", pin, fmt.Errorf("%w: a domain and a pin are needed", control.ErrUsage)
	}
	if domain, err = domainName(f[0]); err != nil {
		return "", pin, fmt.Errorf("%q is not a domain", f[0])
	}
	pin, err = config.ParsePin(f[1])
	return domain, pin, err
}

// outlet is a session of an account, for commands; nil when there is none.
func (p *Proxy) outlet(jid string) otrlayer.Outlet {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sessions {
		if s.jid == jid {
			return s
		}
	}
	return nil
}

// SessionStatus describes a session to programs.
type SessionStatus struct {
	Account       string               `json:"account"`
	Resource      string               `json:"resource"`
	Since         time.Time            `json:"since"`
	Entry         string               `json:"entry"`
	ClientTLS     string               `json:"client_tls"`
	Domain        string               `json:"domain"`
	Address       string               `json:"address"`
	UpstreamTLS   string               `json:"upstream_tls"`
	Pin           string               `json:"pin"`
	SASL          string               `json:"sasl"`
	Conversations []ConversationStatus `json:"conversations"`
}

// ConversationStatus describes a conversation to programs.
type ConversationStatus struct {
	Contact     string `json:"contact"`
	Instance    string `json:"instance"`
	State       string `json:"state"`
	Trust       string `json:"trust"`
	OTRVersion  int    `json:"otr_version"`
	Fingerprint string `json:"fingerprint"`
	Held        int    `json:"held"`
}

// Status is what the command status answers programs.
type Status struct {
	Version  string          `json:"version"`
	Since    time.Time       `json:"since"`
	Sessions []SessionStatus `json:"sessions"`
}

func (p *Proxy) status(_ context.Context, c control.Call) (control.Reply, error) {
	st := Status{Version: p.opt.Version, Since: p.started, Sessions: []SessionStatus{}}
	p.mu.Lock()
	sessions := make([]*session, 0, len(p.sessions))
	for s := range p.sessions {
		if c.Account == "" || s.jid == c.Account {
			sessions = append(sessions, s)
		}
	}
	p.mu.Unlock()
	for _, s := range sessions {
		_, resource, _ := strings.Cut(s.full(), "/")
		x := SessionStatus{Account: s.jid, Resource: resource, Since: s.since, Entry: s.entry, ClientTLS: s.tls, Domain: s.up.domain.Name,
			Address: s.up.conn.RemoteAddr().String(), UpstreamTLS: s.upTLS, Pin: s.up.held, SASL: s.how, Conversations: []ConversationStatus{}}
		for _, v := range s.account.Conversations() {
			y := ConversationStatus{Contact: v.Contact, Instance: fmt.Sprintf("%08x", v.Instance), State: string(v.State), Trust: string(v.Trust), OTRVersion: v.Version, Held: v.Held}
			if v.Fingerprint != (otrlayer.Fingerprint{}) {
				y.Fingerprint = v.Fingerprint.Hex()
			}
			x.Conversations = append(x.Conversations, y)
		}
		st.Sessions = append(st.Sessions, x)
	}
	sort.Slice(st.Sessions, func(i, j int) bool {
		return st.Sessions[i].Account+st.Sessions[i].Resource < st.Sessions[j].Account+st.Sessions[j].Resource
	})
	var b strings.Builder
	fmt.Fprintf(&b, "otrproxy %s, running since %s, %d sessions", st.Version, st.Since.Format(time.DateTime), len(st.Sessions))
	for _, s := range st.Sessions {
		known := "known by " + s.Pin
		if s.Pin == "" {
			known = "vouched for by a CA"
		}
		fmt.Fprintf(&b, "\n%s/%s: server at %s over %s, %s, login %s", s.Account, s.Resource, s.Address, s.UpstreamTLS, known, s.SASL)
		for _, v := range s.Conversations {
			fmt.Fprintf(&b, "\n  %s: %s, key %s", v.Contact, v.State, v.Trust)
			if v.Fingerprint != "" {
				if fp, err := otrlayer.ParseFingerprint(v.Fingerprint); err == nil {
					fmt.Fprintf(&b, ", fingerprint %s", fp)
				}
			}
			if v.Held > 0 {
				fmt.Fprintf(&b, ", %d messages wait", v.Held)
			}
		}
	}
	if c.Account != "" {
		if a, err := p.account(c.Account); err == nil {
			if fp, ok := a.Fingerprint(); ok {
				fmt.Fprintf(&b, "\nYour own fingerprint: %s", fp)
			}
		}
	}
	return control.Reply{Text: b.String(), Data: st}, nil
}

// Commands is the table of the running proxy.
func (p *Proxy) Commands() control.Table { return p.commands }
