package commands

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/address"
	"otrproxy/proxy/control"
	"otrproxy/proxy/relay"
	"otrproxy/proxy/state"
)

// Logins: how strong they were, and accounts whose clients need not hand over the password.

func loginWords() []word {
	return []word{
		{control.Command{Name: "login list", Help: "shows how strongly each account has logged in to its server, and which are enrolled", Reads: true, Args: []control.Arg{anyAccount}}, (*Desk).loginList},
		{control.Command{Name: "login enroll", Help: "enrols an account, so that its clients can log in here by SCRAM; the password is tried at the server and not kept",
			Args: []control.Arg{accountArg, {Name: "password", Kind: control.Secret, Label: "Password of the account"}}}, (*Desk).loginEnrol},
		{control.Command{Name: "login forget", Help: "ends an account's enrolment, and forgets how strongly it has logged in; its password is recognised as before", Args: []control.Arg{accountArg}}, (*Desk).loginForget},
		{control.Command{Name: "login confirm", Help: "says that a login with another password was yours; CODE stands in the message that it got. Without CODE, the administrator says that an account is its person's", Chat: true, Args: []control.Arg{accountArg, anyCode}}, (*Desk).loginConfirm},
		{control.Command{Name: "login refuse", Help: "ends a login with another password, which was not yours, and lets nobody in with it", Chat: true, Args: []control.Arg{accountArg, codeArg}}, (*Desk).loginRefuse},
	}
}

var (
	codeArg = control.Arg{Name: "code", Label: "The code that the other login was shown"}
	anyCode = control.Arg{Name: "code", Label: "The code that the other login was shown", Optional: true}
)

func (k *Desk) loginConfirm(_ context.Context, c control.Call) (control.Reply, error) {
	account, err := address.Bare(c.Arg("account"))
	switch {
	case err != nil:
	case c.Arg("code") != "":
		err = k.Relay.Confirm(account, c.Arg("code"), c.Account == "")
	case c.Account != "":
		err = relay.ErrNoStranger
	}
	if err == nil && c.Account == "" {
		err = k.Logins.Vouch(account)
	}
	if err != nil {
		return control.Reply{}, err
	}
	if c.Account == "" && c.Arg("code") == "" {
		return control.Did("%s is known here by the password of their last logins; if they are one of admins, their chats may decide about servers.", account)
	}
	if c.Account == "" {
		return control.Did("%s is let in with that password; it is the one known here from now on.", account)
	}
	return control.Did("Good. The password of that login is the one I know from now on.")
}

func (k *Desk) loginRefuse(_ context.Context, c control.Call) (control.Reply, error) {
	account, err := address.Bare(c.Arg("account"))
	if err == nil {
		err = k.Relay.RefuseLogin(account, c.Arg("code"))
	}
	if err != nil {
		return control.Reply{}, err
	}
	return control.Did("That login is over, and nobody gets in with its password. The server let them in: change the password of %s, and ask the people who run the server.", account)
}

func (k *Desk) loginLine(account string) (control.LoginLine, error) {
	l := control.LoginLine{Account: account, Enrolled: []string{}}
	e, err := k.Logins.Enrolled(account)
	for _, k := range e {
		if k.Own != nil {
			l.Enrolled = append(l.Enrolled, k.Mechanism)
		}
	}
	if err != nil && !errors.Is(err, keyring.ErrLocked) {
		return l, err
	}
	m, err := k.Logins.LoginsOf(account)
	if m != nil {
		l.Strength, l.Mechanism, l.Since = m.Strength, m.Mechanism, m.Since.Format(time.RFC3339)
	}
	return l, err
}

func (k *Desk) loginList(_ context.Context, c control.Call) (control.Reply, error) {
	lines := []control.LoginLine{}
	var b strings.Builder
	for _, account := range k.Accounts.Known() {
		if c.Arg("account") != "" && c.Arg("account") != account {
			continue
		}
		l, err := k.loginLine(account)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", account, err)
			continue
		}
		lines = append(lines, l)
		how := "has not logged in yet"
		if l.Mechanism != "" {
			how = "logs in by " + l.Mechanism + " (" + map[string]string{"plain": "hands the server the password", "scram": "proves the password", "bound": "bound to the connection"}[l.Strength] + "), and by nothing less"
		}
		enrolled := "not enrolled"
		if len(l.Enrolled) > 0 {
			enrolled = "enrolled for " + strings.Join(l.Enrolled, ", ")
		}
		fmt.Fprintf(&b, "%s %s; %s\n", account, how, enrolled)
	}
	text := strings.TrimRight(b.String(), "\n")
	if text == "" {
		text = "no accounts yet"
	}
	return control.Reply{Text: text, Data: lines}, nil
}

func (k *Desk) loginEnrol(ctx context.Context, c control.Call) (control.Reply, error) {
	account, err := address.Bare(c.Arg("account"))
	if err != nil || !strings.Contains(account, "@") {
		return control.Reply{}, fmt.Errorf("%q is no account, such as alice@example.org", c.Arg("account"))
	}
	if k.Vault.Locked() {
		return control.Reply{}, state.LockedError()
	}
	names, err := k.Logins.EnrolWith(ctx, account, c.Arg("password"))
	if err == nil { // the administrator has given the password
		err = k.Logins.Vouch(account)
	}
	if err != nil {
		return control.Reply{}, err
	}
	return control.Did("%s is enrolled for %s: its clients can log in here without handing over the password, which is not kept.", account, strings.Join(names, ", "))
}

func (k *Desk) loginForget(_ context.Context, c control.Call) (control.Reply, error) {
	account, err := address.Bare(c.Arg("account"))
	if err != nil || !slices.Contains(k.Accounts.Known(), account) {
		return control.Reply{}, fmt.Errorf("there is no account %s here", control.Clip(c.Arg("account")))
	}
	if err := k.Logins.ForgetLogin(account); err != nil {
		return control.Reply{}, err
	}
	return control.Did("%s is not enrolled, and its next login may be by whatever its server offers.", account)
}

// strangerDecisions are the logins with other passwords that wait for a word.
func (k *Desk) strangerDecisions(account string) (out []control.Decision) {
	for _, st := range k.Logins.Passwords.Unconfirmed(account) {
		text := st.Told()
		if account == "" {
			text = fmt.Sprintf("somebody logged in as %s%s with another password than the one known here, and the server let them in; they see nothing private. "+
				"If it was them, with the code %s: otrproxy login confirm %s %s; if not: otrproxy login refuse %s %s", st.Account, st.From(), st.Code, st.Account, st.Code, st.Account, st.Code)
		}
		out = append(out, control.Decision{Kind: "login-unknown", Account: st.Account, Code: st.Code, Text: text})
	}
	return out
}
