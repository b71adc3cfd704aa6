package commands

import (
	"context"
	"fmt"
	"strings"
	"time"

	"otrproxy/otrlayer"
	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
)

// Messages that wait for a private conversation, or for a person's decision.

func heldWords() []word {
	return []word{
		{control.Command{Name: "held list", Short: "held", Help: "lists the messages that wait, and for what", Chat: true, Reads: true,
			Args: []control.Arg{anyAccount, anyContact}}, (*Desk).heldList},
		{control.Command{Name: "held send", Short: "send", Help: "accepts the contact's changed key, named by its fingerprint, and sends what waits; without one, asks the contact again", Chat: true,
			Args: []control.Arg{accountArg, contactArg, {Name: "fingerprint", Kind: control.Rest, Optional: true, Label: "Fingerprint of the new key"}}}, with((*Desk).release)},
		{control.Command{Name: "held drop", Short: "drop", Help: "gives back the messages that wait for a contact", Chat: true,
			Args: []control.Arg{accountArg, contactArg}}, with(func(_ *Desk, a *otrlayer.Account, contact string, _ control.Call) (control.Reply, error) {
			return control.Did("%s taken back.", control.Plural(a.Drop(contact, otrlayer.CauseDropped), "message"))
		})},
	}
}

func (k *Desk) heldList(_ context.Context, c control.Call) (control.Reply, error) {
	accounts, trouble, err := k.each(c)
	if err != nil {
		return control.Reply{}, err
	}
	contact := ""
	if c.Arg("contact") != "" {
		if contact, err = address.Bare(c.Arg("contact")); err != nil {
			return control.Reply{}, err
		}
	}
	lines := []control.HeldLine{}
	for _, a := range accounts {
		for _, m := range a.Held() {
			if contact == "" || m.Contact == contact {
				lines = append(lines, control.HeldLine{Account: a.JID(), Contact: m.Contact, ID: m.ID, Since: m.Since, Expires: m.Expires, Cause: string(m.Why)})
			}
		}
	}
	if len(lines) == 0 {
		return control.Reply{Text: "nothing waits" + trouble, Data: lines}, nil
	}
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s to %s: waits for %s since %s, comes back at %s", l.Account, l.Contact, heldReasons[l.Cause], l.Since.Format(time.TimeOnly), l.Expires.Format(time.TimeOnly))
	}
	return control.Reply{Text: b.String() + trouble, Data: lines}, nil
}

// heldReasons are what messages wait for.
var heldReasons = map[string]string{
	string(otrlayer.CauseExpired):    "a private conversation",
	string(otrlayer.CauseKeyChanged): "your decision about their changed key",
	string(otrlayer.CauseUnverified): "their key to be verified",
}

// release accepts a changed key, or asks again. The key must be named: between the line
// that showed it and this command there may have come another.
func (k *Desk) release(a *otrlayer.Account, contact string, c control.Call) (control.Reply, error) {
	v := a.Conversation(contact)
	changed := v.Trust == keyring.Changed && v.State == otrlayer.StateEncrypted
	if c.Arg("fingerprint") == "" && changed {
		return control.Reply{}, fmt.Errorf("the key of %s has changed. Compare fingerprints by another way first, if you can: %s. To accept the new key without that, name it: %s",
			contact, c.How("contact verify"), c.How("held send", "fingerprint", v.Fingerprint.String()))
	}
	if c.Arg("fingerprint") != "" {
		fp, err := fingerprintOf(c.Arg("fingerprint"), contact)
		if err != nil {
			return control.Reply{}, err
		}
		ok, err := a.Accept(contact, fp)
		switch {
		case err != nil:
			return control.Reply{}, err
		case !ok && changed:
			return control.Reply{}, fmt.Errorf("this is not the new key of %s, which has the fingerprint %s; nothing was accepted", contact, v.Fingerprint)
		case !ok:
			return control.Reply{}, fmt.Errorf("no changed key of %s waits for a decision", contact)
		}
		r, err := control.Did("The new key of %s is accepted, not verified.", contact)
		return k.also(c, a.JID(), contact, r, err)
	}
	n := a.Ask(contact)
	if n == 0 {
		return control.Reply{}, fmt.Errorf("nothing waits for %s, and no changed key of theirs waits for a decision", contact)
	}
	if v.Waits == otrlayer.CauseUnverified {
		return control.Reply{}, fmt.Errorf("%s for %s, and the rules demand that their key is verified first: %s, or %s", waits(n), contact, c.How("contact verify"), c.How("smp ask"))
	}
	return control.Did("%s for %s, to be sent as soon as the conversation is private; they were asked again.", waits(n), contact)
}

func waits(n int) string {
	if n == 1 {
		return "1 message waits"
	}
	return fmt.Sprintf("%d messages wait", n)
}
