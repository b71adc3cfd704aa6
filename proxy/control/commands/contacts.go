package commands

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
)

// Contacts: how private the conversation is, whose key it is, and comparing secrets.

func contactWords() []word {
	return []word{
		{control.Command{Name: "contact list", Short: "contacts", Help: "lists contacts: how private, whose key, which rule", Chat: true, Reads: true,
			Args: []control.Arg{anyAccount}}, (*Desk).contactList},
		{control.Command{Name: "contact show", Short: "show", Help: "shows a contact: state, trust and the fingerprints of both sides", Chat: true, Reads: true,
			Args: []control.Arg{accountArg, contactArg}}, with((*Desk).contactShow)},
		{control.Command{Name: "contact verify", Short: "verify", Help: "compares a fingerprint with the one in use; write it as the contact read it out. Without one, says how", Chat: true,
			Args: []control.Arg{accountArg, contactArg, {Name: "fingerprint", Kind: control.Rest, Optional: true, Label: "Fingerprint, as the contact read it out"}}}, with((*Desk).verify)},
		{control.Command{Name: "contact distrust", Short: "distrust", Help: "takes back that the contact's key was verified", Chat: true,
			Args: []control.Arg{accountArg, contactArg}}, with((*Desk).distrust)},
		{control.Command{Name: "contact policy", Short: "policy", Help: "shows which rule is in force for the contact", Chat: true, Reads: true,
			Args: []control.Arg{accountArg, contactArg}}, with((*Desk).contactPolicy)},
		{control.Command{Name: "contact start", Short: "start", Help: "asks the contact for a private conversation, or refreshes it", Chat: true,
			Args: []control.Arg{accountArg, contactArg}}, with(func(k *Desk, a *otrlayer.Account, contact string, c control.Call) (control.Reply, error) {
			o, err := k.connected(a.JID())
			if err != nil {
				return control.Reply{}, err
			}
			a.Start(o, contact)
			return inConversation(c, "Asked %s for a private conversation.", contact)
		})},
		{control.Command{Name: "contact end", Short: "end", Help: "ends the private conversation with the contact", Chat: true,
			Args: []control.Arg{accountArg, contactArg}}, with(func(k *Desk, a *otrlayer.Account, contact string, c control.Call) (control.Reply, error) {
			a.End(k.Relay.Outlet(a.JID()), contact)
			return inConversation(c, "The private conversation with %s is over.", contact)
		})},
	}
}

// line describes a contact to programs.
func (k *Desk) line(a *otrlayer.Account, v otrlayer.Conversation) control.ContactLine {
	rule := k.Config().RuleFor(a.JID(), v.Contact)
	l := control.ContactLine{Account: a.JID(), Contact: v.Contact, Instance: fmt.Sprintf("%08x", v.Instance), State: string(v.State), Trust: string(v.Trust),
		OTRVersion: v.Version, Policy: string(rule.Policy), Held: v.Held, Rule: where(rule), Waits: string(v.Waits), Question: v.Question, Known: hexes(v.Known), Others: hexes(v.Others)}
	if v.Fingerprint != (keyring.Fingerprint{}) {
		l.Fingerprint = v.Fingerprint.Hex()
	}
	if own, ok := a.Fingerprint(); ok {
		l.Own = own.Hex()
	}
	switch {
	case v.Asked:
		l.Comparing = "asked"
	case v.Comparing:
		l.Comparing = "asking"
	}
	return l
}

func hexes(list []keyring.Fingerprint) (out []string) {
	for _, f := range list {
		out = append(out, f.Hex())
	}
	return out
}

// grouped is a fingerprint of 40 hex digits as libotr shows it.
func grouped(hex string) string {
	if fp, err := keyring.ParseFingerprint(hex); err == nil {
		return fp.String()
	}
	return "none yet"
}

// where is where a rule stands, for people.
func where(r *config.Rule) string {
	if r.Line == 0 {
		return "the built-in rule"
	}
	return fmt.Sprintf("line %d of the configuration", r.Line)
}

// stateWords and trustWords tell states in words.
var (
	stateWords = map[string]string{"plaintext": "not private", "encrypted": "private", "finished": "ended by the other side; nothing is sent in clear"}
	trustWords = map[string]string{"unverified": "key not verified", "verified": "key verified", "smp": "key verified by a secret", "changed": "KEY CHANGED, nothing is sent until you decide"}
)

// inWords is a contact in one line.
func inWords(l control.ContactLine) string {
	text := l.Contact + ": " + stateWords[l.State]
	if l.Fingerprint != "" {
		text += ", " + trustWords[l.Trust] + ", fingerprint " + grouped(l.Fingerprint)
	}
	if l.Held > 0 {
		text += ", " + control.Plural(l.Held, "message") + " waiting for " + heldReasons[l.Waits]
	}
	switch l.Comparing {
	case "asked":
		text += ", they wait for your answer to a question or secret"
	case "asking":
		text += ", a secret is being compared"
	}
	return text
}

func (k *Desk) contactList(_ context.Context, c control.Call) (control.Reply, error) {
	accounts, trouble, err := k.each(c)
	if err != nil {
		return control.Reply{}, err
	}
	lines := []control.ContactLine{}
	var b strings.Builder
	for _, a := range accounts {
		for _, v := range a.Contacts() {
			l := k.line(a, v)
			lines = append(lines, l)
			if c.Account == "" {
				b.WriteString(l.Account + " -> ")
			}
			b.WriteString(inWords(l) + "; policy " + l.Policy + "\n")
		}
	}
	if len(lines) == 0 {
		b.WriteString("no contacts with OTR yet")
	}
	return control.Reply{Text: strings.TrimRight(b.String(), "\n") + trouble, Data: lines}, nil
}

func (k *Desk) contactShow(a *otrlayer.Account, contact string, c control.Call) (control.Reply, error) {
	l := k.line(a, a.Conversation(contact))
	text := inWords(l) + "."
	if l.OTRVersion != 0 {
		text += fmt.Sprintf(" OTR version %d.", l.OTRVersion)
	}
	text += fmt.Sprintf("\nPolicy %s (%s).\nYour fingerprint:  %s\nTheir fingerprint: %s", l.Policy, l.Rule, grouped(l.Own), grouped(l.Fingerprint))
	for _, k := range l.Known {
		text += "\nAlso known of them: " + grouped(k)
	}
	switch {
	case l.Trust == "changed":
		text += "\nNext: compare fingerprints and write " + c.How("contact verify") + ", or accept the new key: " + c.How("held send", "fingerprint", grouped(l.Fingerprint))
	case l.Comparing == "asked":
		text += "\nNext: " + c.How("smp answer")
	case l.Fingerprint == "":
		text += "\nNext: write to them, or " + c.How("contact start")
	case l.Trust == "unverified":
		text += "\nNext: make sure that it is them: " + c.How("contact verify") + ", or " + c.How("smp ask")
	}
	return control.Reply{Text: text, Data: []control.ContactLine{l}}, nil
}

// fingerprintOf reads a fingerprint as the contact read it out, or as other programs
// write it into a QR code: xmpp:JID?otr-fingerprint=HEX.
func fingerprintOf(s, contact string) (keyring.Fingerprint, error) {
	if u, err := url.Parse(s); err == nil && u.Scheme == "xmpp" {
		if whose, err := address.Bare(u.Opaque); err != nil || whose != contact {
			return keyring.Fingerprint{}, fmt.Errorf("this is the fingerprint of %s, not of %s", u.Opaque, contact)
		}
		for part := range strings.FieldsFuncSeq(u.RawQuery, func(r rune) bool { return r == ';' || r == '&' }) {
			if v, ok := strings.CutPrefix(part, "otr-fingerprint="); ok {
				return keyring.ParseFingerprint(v)
			}
		}
	}
	return keyring.ParseFingerprint(s)
}

func (k *Desk) verify(a *otrlayer.Account, contact string, c control.Call) (control.Reply, error) {
	l := k.line(a, a.Conversation(contact))
	if c.Arg("fingerprint") == "" {
		if l.Fingerprint == "" {
			return control.Reply{}, fmt.Errorf("no key of %s is known yet; begin with %s", contact, c.How("contact start"))
		}
		return control.Reply{Data: []control.ContactLine{l}, Text: fmt.Sprintf("Talk to %s by another way than this chat: in the same room, or on the phone, where you know the voice.\n"+
			"Read this to them, it is yours:  %s\nWhat they read to you should be:  %s\nThen write what they have read out: %s", contact, grouped(l.Own), grouped(l.Fingerprint), c.How("contact verify"))}, nil
	}
	fp, err := fingerprintOf(c.Arg("fingerprint"), contact)
	if err != nil {
		return control.Reply{}, err
	}
	ok, err := a.Verify(contact, fp)
	switch {
	case err != nil:
		return control.Reply{}, err
	case !ok && l.Fingerprint == "":
		return control.Reply{}, fmt.Errorf("no key of %s is known yet, so there is nothing to compare it with; begin with %s", contact, c.How("contact start"))
	case !ok:
		return control.Reply{}, fmt.Errorf("this is NOT the fingerprint in use with %s, which is %s; if they read it out correctly, somebody else may be in between: do not trust this conversation until you know why", contact, grouped(l.Fingerprint))
	}
	text := "The key of " + contact + " is verified."
	if l.Held > 0 && a.Conversation(contact).Held == 0 {
		text += " What waited has been sent."
	}
	r, err := control.Did("%s", text)
	r.Data = []control.ContactLine{k.line(a, a.Conversation(contact))}
	return k.also(c, a.JID(), contact, r, err)
}

func (k *Desk) distrust(a *otrlayer.Account, contact string, c control.Call) (control.Reply, error) {
	was, err := a.Distrust(contact)
	if err != nil {
		return control.Reply{}, err
	}
	if !was {
		return control.Reply{}, fmt.Errorf("no key of %s was verified", contact)
	}
	r, err := control.Did("The keys of %s are not verified any more.", contact)
	return k.also(c, a.JID(), contact, r, err)
}

// policyWords are what policies mean.
var policyWords = map[config.Policy]string{
	config.Never:         "hands off: nothing is encrypted, and nothing changed",
	config.Manual:        "plain until somebody asks; once private, never silently back",
	config.Opportunistic: "OTR is offered; once private, never silently back",
	config.Require:       "nothing leaves in clear",
	config.RequireVerify: "nothing leaves in clear, nor to a key that nobody has verified",
}

// ExplainRule says in words which rule is between two bare JIDs, where it stands, and which
// lines before it do not match.
func ExplainRule(cfg *config.Config, account, contact string) (string, error) {
	a, err := address.Bare(account)
	if err != nil || !strings.Contains(a, "@") {
		return "", fmt.Errorf("%q is no account, such as alice@example.org", account)
	}
	c, err := address.Bare(contact)
	if err != nil {
		return "", fmt.Errorf("%q is no address, such as bob@example.org", contact)
	}
	return explained(cfg, a, c), nil
}

func explained(cfg *config.Config, account, contact string) string {
	r := cfg.RuleFor(account, contact)
	allow := make([]string, len(r.Allow))
	for i, x := range r.Allow {
		allow[i] = string(x)
	}
	passes := strings.Join(allow, ", ")
	if passes == "" {
		passes = "nothing"
	}
	text := fmt.Sprintf("%s: %s (%s). Passes unprotected: %s. From %s", contact, r.Policy, policyWords[r.Policy], passes, where(r))
	if r.Line != 0 {
		text += fmt.Sprintf(" (account %s, contact %s), the first that matches", r.Account, r.Contact)
	} else if len(cfg.OTR) > 0 {
		text += ", for none of the configuration matches"
	}
	text += "."
	if r.Drop {
		text += " What comes in clear is not shown."
	}
	if r.Reason != "" {
		text += " The reason for this rule: " + r.Reason
	}
	return text
}

func (k *Desk) contactPolicy(a *otrlayer.Account, contact string, c control.Call) (control.Reply, error) {
	cfg := k.Config()
	text := explained(cfg, a.JID(), contact)
	if c.Account == "" && cfg.File != "" {
		text += " To change it, edit " + cfg.File + ", then " + c.How("reload")
	}
	return control.Reply{Text: text, Data: []control.ContactLine{k.line(a, a.Conversation(contact))}}, nil
}

func smpWords() []word {
	question := control.Arg{Name: "question", Kind: control.Rest, Label: "A question only they can answer"}
	answer := control.Arg{Name: "secret", Kind: control.Secret, Label: "The answer you expect"}
	shared := control.Arg{Name: "secret", Kind: control.Secret, Label: "The secret you two share"}
	return []word{
		{control.Command{Name: "smp ask", Help: "asks the contact a question; the right answer verifies their key for you (not yours for them)", Chat: true,
			Args: []control.Arg{accountArg, contactArg, question, answer}}, comparing(func(a *otrlayer.Account, o otrlayer.Outlet, contact string, c control.Call) (string, error) {
			q := strings.TrimSpace(c.Arg("question"))
			return "Asked " + contact + "; their program shows them how to answer. You are told how it ends.", a.Compare(o, contact, &q, c.Arg("secret"))
		})},
		{control.Command{Name: "smp start", Help: "asks the contact for a secret you two share; the same one verifies both keys", Chat: true,
			Args: []control.Arg{accountArg, contactArg, shared}}, comparing(func(a *otrlayer.Account, o otrlayer.Outlet, contact string, c control.Call) (string, error) {
			return "Asked " + contact + "; their program shows them how to answer. You are told how it ends.", a.Compare(o, contact, nil, c.Arg("secret"))
		})},
		{control.Command{Name: "smp answer", Help: "answers the contact's question, or names the secret they ask for", Chat: true,
			Args: []control.Arg{accountArg, contactArg, {Name: "secret", Kind: control.Secret, Label: "Your answer"}}}, comparing(func(a *otrlayer.Account, o otrlayer.Outlet, contact string, c control.Call) (string, error) {
			return "Your answer is being compared, without being sent. You are told how it ends.", a.Answer(o, contact, c.Arg("secret"))
		})},
		{control.Command{Name: "smp abort", Help: "gives up comparing a secret", Chat: true,
			Args: []control.Arg{accountArg, contactArg}}, comparing(func(a *otrlayer.Account, o otrlayer.Outlet, contact string, _ control.Call) (string, error) {
			return "The comparison of secrets was given up.", a.AbortComparing(o, contact)
		})},
	}
}

// comparing runs a step of a comparison, and says what to do about what is in its way.
func comparing(step func(a *otrlayer.Account, o otrlayer.Outlet, contact string, c control.Call) (string, error)) task {
	return with(func(k *Desk, a *otrlayer.Account, contact string, c control.Call) (control.Reply, error) {
		o, err := k.connected(a.JID())
		if err != nil {
			return control.Reply{}, err
		}
		text, err := step(a, o, contact, c)
		switch {
		case errors.Is(err, otrlayer.ErrNotPrivate):
			err = fmt.Errorf("there is no private conversation with %s to compare a secret in; write %s first", contact, c.How("contact start"))
		case errors.Is(err, otrlayer.ErrKeyChanged):
			err = fmt.Errorf("the key of %s has changed, and your question would go to whoever has the new one; compare a secret without a question: %s", contact, c.How("smp start"))
		case errors.Is(err, otrlayer.ErrComparing):
			err = fmt.Errorf("another comparison with %s is under way; answer it with %s, or give it up with %s", contact, c.How("smp answer"), c.How("smp abort"))
		case errors.Is(err, otrlayer.ErrNotAsked):
			err = fmt.Errorf("%s has asked nothing; begin with %s", contact, c.How("smp ask"))
		}
		if err != nil {
			return control.Reply{}, err
		}
		return control.Did("%s", text)
	})
}
