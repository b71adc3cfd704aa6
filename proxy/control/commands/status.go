package commands

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"otrproxy/otrlayer"
	"otrproxy/proxy/address"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/control"
	"otrproxy/proxy/state"
	"otrproxy/proxy/upstream"
)

func statusWords() []word {
	return []word{{control.Command{Name: "status", Help: "shows who is connected, how well the server is known, how private each conversation is, and what waits for a decision",
		Chat: true, Reads: true, Args: []control.Arg{anyAccount}}, (*Desk).status}}
}

// overview is everything at a glance, of one account or, for "", of all.
func (k *Desk) overview(account string) control.Status {
	st := control.Status{Version: k.Version, Since: k.Started, Sessions: []control.SessionStatus{}, Decisions: k.decisions(account)}
	if account == "" && k.Confinement != nil {
		st.Confinement = k.Confinement()
	}
	st.Kept, _ = k.Kept(account)
	for _, s := range k.Relay.EverySession(account) {
		x := s.Status()
		for _, v := range s.Account().Conversations() {
			x.Conversations = append(x.Conversations, k.line(s.Account(), v))
		}
		st.Sessions = append(st.Sessions, x)
	}
	slices.SortStableFunc(st.Sessions, func(a, b control.SessionStatus) int {
		return strings.Compare(a.Account+"/"+a.Resource, b.Account+"/"+b.Resource)
	})
	return st
}

func (k *Desk) status(_ context.Context, c control.Call) (control.Reply, error) {
	account := ""
	if c.Arg("account") != "" {
		a, err := k.named(c)
		if err != nil {
			return control.Reply{}, err
		}
		account = a.JID()
	}
	st := k.overview(account)
	var b strings.Builder
	if c.Account == "" {
		fmt.Fprintf(&b, "otrproxy %s, running since %s, %s", st.Version, st.Since.Format(time.DateTime), control.Plural(len(st.Sessions), "session"))
	} else {
		fmt.Fprintf(&b, "otrproxy %s, you are connected with %s", st.Version, control.Plural(len(st.Sessions), "client"))
	}
	if c := st.Confinement; c != nil {
		fmt.Fprintf(&b, "\nConfined (%s): %s", c.Mode, strings.Join(c.InForce, ", "))
		if len(c.Missing) > 0 {
			fmt.Fprintf(&b, "; not in force: %s", strings.Join(c.Missing, ", "))
		}
	}
	for _, d := range st.Decisions {
		b.WriteString("\nTo decide: " + d.Text)
	}
	for _, s := range st.Sessions {
		known := "known by " + s.Pin
		if s.Pin == "" {
			known = "vouched for by a CA"
		}
		fmt.Fprintf(&b, "\n%s/%s: server at %s over %s, %s, login %s", s.Account, s.Resource, s.Address, s.UpstreamTLS, known, s.SASL)
		if s.Stranger {
			b.WriteString(", with another password than the one known here: sees nothing private")
		}
		if s.Lingers {
			b.WriteString(", its program has gone: stays for what waits")
		}
		for _, v := range s.Conversations {
			b.WriteString("\n  " + inWords(v))
		}
	}
	b.WriteString(keptWords(st.Kept))
	if c.Account != "" {
		if a, err := k.Accounts.Open(c.Account); err == nil {
			if fp, ok := a.Fingerprint(); ok {
				fmt.Fprintf(&b, "\nYour own fingerprint: %s", fp)
			}
		}
	}
	return control.Reply{Text: b.String(), Data: st}, nil
}

// decisions are what waits for a person, the most urgent first: what stops messages, and
// what somebody else waits for.
func (k *Desk) decisions(account string) []control.Decision {
	out := []control.Decision{}
	var servers []control.Decision
	if account == "" || k.Config().IsAdmin(account) {
		servers = k.serverDecisions()
	}
	if account == "" {
		out = append(out, k.lockedDecisions()...)
	}
	accounts := k.Accounts.Opened()
	slices.SortFunc(accounts, func(a, b *otrlayer.Account) int { return strings.Compare(a.JID(), b.JID()) })
	var keys, questions, unverified []control.Decision
	for _, a := range accounts {
		if account != "" && a.JID() != account {
			continue
		}
		for _, v := range a.Contacts() {
			l := k.line(a, v)
			d := control.Decision{Account: l.Account, Contact: l.Contact, Fingerprint: l.Fingerprint, Known: l.Known, Held: l.Held}
			switch {
			case l.Trust == "changed" && l.State == "encrypted":
				d.Kind, d.Text = "key-changed", fmt.Sprintf("the key of %s has changed to %s; nothing is sent to them until you decide.", l.Contact, grouped(l.Fingerprint))
				keys = append(keys, d)
			case l.Comparing == "asked":
				d.Kind, d.Question, d.Text = "question", l.Question, fmt.Sprintf("%s waits for your answer to a secret or question.", l.Contact)
				questions = append(questions, d)
			case v.Waits == otrlayer.CauseUnverified:
				d.Kind, d.Text = "unverified", fmt.Sprintf("%s for %s until their key is verified.", waits(l.Held), l.Contact)
				unverified = append(unverified, d)
			}
		}
	}
	return slices.Concat(out, k.strangerDecisions(account), keys, servers, questions, unverified)
}

// lockedDecisions is that the keys are to be unlocked.
func (k *Desk) lockedDecisions() []control.Decision {
	if !k.Vault.Locked() {
		return nil
	}
	return []control.Decision{{Kind: "locked", Text: control.Sentence(state.LockedError())}}
}

// serverDecisions are the household's servers whose certificate was refused, and not
// accepted since.
func (k *Desk) serverDecisions() (out []control.Decision) {
	refusals, weaker := k.Servers.Unforgiven(), k.Logins.FallenBehind()
	for _, domain := range slices.Sorted(maps.Keys(refusals)) {
		if !k.Servers.Concerns(domain) {
			continue
		}
		f := refusals[domain]
		d := control.Decision{Kind: "server-unknown", Domain: domain, Presented: upstream.PresentedPin(f), Known: f.Pinned, Text: f.Text}
		if f.Cert != nil {
			_, spki := upstream.PinsOf(f.Cert)
			d.SPKI, d.SHA1 = spki.String(), upstream.SHA1(f.Cert)
		}
		if f.Cause == causes.FailPin {
			d.Kind = "server-changed"
		}
		out = append(out, d)
	}
	for _, account := range slices.Sorted(maps.Keys(weaker)) {
		out = append(out, control.Decision{Kind: "login-weaker", Account: account, Domain: address.DomainOf(account), Text: weaker[account].Text})
	}
	for _, domain := range k.Servers.Seen() {
		if text := k.Servers.Ending(domain); text != "" && refusals[domain] == nil && k.Servers.Concerns(domain) {
			out = append(out, control.Decision{Kind: "server-expiring", Domain: domain, Known: k.Servers.HeldTo(domain), Text: text})
		}
	}
	return out
}

// link mints the address of the page.
func (k *Desk) link(_ context.Context, c control.Call) (control.Reply, error) {
	if k.WebLink == nil || k.Config().Web == "" {
		return control.Reply{}, errors.New("the web page is off; set \"web\" in the configuration, such as web: \"127.0.0.1:5280\", and start otrproxy anew")
	}
	link := k.WebLink()
	text := link
	if c.Place == control.InShell {
		text += "\nIt works once, within ten minutes, in a browser on this machine."
	}
	return control.Reply{Text: text, Data: []control.Done{{Text: link}}}, nil
}

// Waits is how long a message has waited at most, and what waits for a person, by the kind of
// decision.
func (k *Desk) Waits() (longest time.Duration, kinds map[string]int) {
	sum := k.Accounts.Keeps.All()
	kinds = map[string]int{"key-changed": sum.Changed, "question": sum.Asking}
	for _, d := range slices.Concat(k.lockedDecisions(), k.strangerDecisions(""), k.serverDecisions()) {
		kinds[d.Kind]++
	}
	if sum.Held == 0 {
		return 0, kinds
	}
	for _, a := range k.Accounts.Opened() {
		since, keys := a.Waiting()
		if kinds["unverified"] += keys; !since.IsZero() {
			longest = max(longest, time.Since(since))
		}
	}
	return longest, kinds
}
