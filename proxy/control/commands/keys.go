package commands

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"otrproxy/otrlayer"
	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/address"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/control"
	"otrproxy/proxy/state"
)

// Our own keys: shown, made, moved in from and out to other programs, and locked.

func keyWords() []word {
	return []word{
		{control.Command{Name: "key show", Short: "key", Help: "shows the fingerprint of your own key", Chat: true, Reads: true, Args: []control.Arg{anyAccount}}, (*Desk).keyShow},
		{control.Command{Name: "key generate", Help: "makes an account's key before its first login, or with --replace a new one in the place of the old",
			Args: []control.Arg{accountArg, {Name: "replace", Kind: control.Flag, Label: "Replace the key that is there (contacts will be told that it has changed)"}}}, (*Desk).keyGenerate},
		{control.Command{Name: "key import", Help: "takes over keys, fingerprints and trust from libotr files or profile directories of Pidgin, Adium, mcabber, bitlbee and others", Files: true,
			Args: []control.Arg{{Name: "path", Kind: control.Paths, Label: "Files or directories"},
				{Name: "account", Kind: control.Option, Label: "Account that --from is meant for"},
				{Name: "from", Kind: control.Option, Label: "Name of the account in the files, where it is no address"},
				{Name: "replace", Kind: control.Flag, Label: "Where something else is here, take the file's"}}}, (*Desk).keyImport},
		{control.Command{Name: "key export", Help: "writes an account's key, fingerprints and instance tag as libotr files into a directory", Files: true,
			Args: []control.Arg{accountArg, {Name: "directory", Kind: control.Path, Label: "Directory, new or empty"},
				{Name: "as", Kind: control.Option, Label: "Name of the account in the files (Pidgin: with its resource)"},
				{Name: "protocol", Kind: control.Option, Label: "Name of the protocol in the files (Pidgin prpl-jabber, bitlbee and mcabber jabber)"}}}, with((*Desk).keyExport)},
		{control.Command{Name: "key passphrase", Help: "encrypts the private keys on disk with a passphrase, which has to be given after each start; with --remove, not any more",
			Args: []control.Arg{{Name: "passphrase", Kind: control.Secret, Label: "New passphrase", Optional: true}, {Name: "remove", Kind: control.Flag, Label: "Keep the keys in clear again"}}}, (*Desk).keyPassphrase},
		{control.Command{Name: "key unlock", Help: "gives the passphrase of the private keys",
			Args: []control.Arg{{Name: "passphrase", Kind: control.Secret, Label: "Passphrase"}}}, (*Desk).keyUnlock},
	}
}

// fingerprintURI is a fingerprint as other programs read it, from a QR code as well.
func fingerprintURI(account string, fp keyring.Fingerprint) string {
	return "xmpp:" + account + "?otr-fingerprint=" + fp.Hex()
}

func (k *Desk) keyShow(_ context.Context, c control.Call) (control.Reply, error) {
	accounts, trouble, err := k.each(c)
	if err != nil {
		return control.Reply{}, err
	}
	lines := []control.KeyLine{}
	var b strings.Builder
	for _, a := range accounts {
		l := control.KeyLine{Account: a.JID(), State: "missing"}
		if fp, ok := a.Fingerprint(); ok {
			l.State, l.Fingerprint, l.URI = "ready", fp.Hex(), fingerprintURI(a.JID(), fp)
			fmt.Fprintf(&b, "%s %s\n%s\n", l.Account, fp, l.URI)
		} else if c.Arg("account") != "" && a.NeedKey() {
			fmt.Fprintf(&b, "%s has no key yet; it is being made: ask again in a moment\n", l.Account)
		} else {
			fmt.Fprintf(&b, "%s has no key yet; it is made at the first login\n", l.Account)
		}
		lines = append(lines, l)
	}
	reply := control.Reply{Text: strings.TrimRight(b.String(), "\n"), Data: lines}
	if len(lines) == 1 {
		reply.QR = lines[0].URI
	}
	reply.Text = strings.TrimLeft(reply.Text+trouble, "\n")
	if k.Vault.Locked() {
		reply.Text = strings.TrimLeft(reply.Text+"\n"+control.Sentence(state.LockedError()), "\n")
	} else if reply.Text == "" {
		reply.Text = "no accounts yet"
	}
	return reply, nil
}

func (k *Desk) keyGenerate(_ context.Context, c control.Call) (control.Reply, error) {
	jid, err := address.Bare(c.Arg("account"))
	if err != nil || !strings.Contains(jid, "@") {
		return control.Reply{}, fmt.Errorf("%q is no account, such as alice@example.org", c.Arg("account"))
	}
	a, err := k.Accounts.Open(jid)
	if errors.Is(err, keyring.ErrLocked) {
		err = state.LockedError()
	}
	if err != nil {
		return control.Reply{}, err
	}
	if fp, ok := a.Fingerprint(); ok && !c.Has("replace") {
		return control.Reply{}, fmt.Errorf("%s has a key already, %s; --replace makes a new one, which every contact will see as changed", jid, fp)
	}
	fp, err := a.Generate()
	if err != nil {
		return control.Reply{}, err
	}
	k.Bell.Changed()
	return control.Reply{Text: fmt.Sprintf("The new key of %s has the fingerprint %s", jid, fp), QR: fingerprintURI(jid, fp),
		Data: []control.KeyLine{{Account: jid, Fingerprint: fp.Hex(), URI: fingerprintURI(jid, fp), State: "ready"}}}, nil
}

func (k *Desk) keyExport(a *otrlayer.Account, _ string, c control.Call) (control.Reply, error) {
	files, err := a.Export(c.Arg("as"), c.Arg("protocol"))
	if err != nil {
		return control.Reply{}, err
	}
	r, err := control.Did("The key, fingerprints and instance tag of %s are in %s. Whoever has these files can pretend to be you.", a.JID(), c.Arg("directory"))
	for _, f := range files {
		r.Files = append(r.Files, control.File{Name: f.Name, Text: f.Text})
	}
	return r, err
}

// An importing collects what is to be taken over.
type importing struct {
	k             *Desk
	account, from string
	replace       bool
	lines         []control.ImportLine
	keys          map[string]*keyring.PrivateKey
	known         map[string]map[string][]keyring.KnownKey // by account and contact
	tags          map[string]uint32
	file          map[string]string // where each came from
}

// whose is the account that an entry of a file belongs to, "" for none of ours.
func (i *importing) whose(name, proto string) string {
	if i.from != "" {
		if name == i.from {
			return i.account
		}
		return ""
	}
	switch proto {
	case "prpl-jabber", "jabber", "xmpp", "libpurple-Jabber":
	default:
		return ""
	}
	bare, err := address.Bare(name)
	if err != nil || !strings.Contains(bare, "@") {
		return ""
	}
	return bare
}

func (i *importing) note(l control.ImportLine) { i.lines = append(i.lines, l) }

func (i *importing) skip(file, kind, name, why string) {
	if slices.ContainsFunc(i.lines, func(l control.ImportLine) bool { return l.File == file && l.Kind == kind && l.Account == name }) {
		return // once for each account and file
	}
	i.note(control.ImportLine{File: file, Account: name, Kind: kind, Result: "skipped", Text: why})
}

const noAddress = "its account is no XMPP address; say whose it is with --account JID --from NAME"

// read takes in one file.
func (i *importing) read(f control.File) {
	path := f.Name
	if f.Unread != "" {
		i.skip(path, "file", "", f.Unread)
		return
	}
	profile, ok := keyring.ReadProfile(f.Text)
	if !ok {
		if len(f.Text) > 0 {
			i.skip(path, "file", "", "not a file of libotr's, or damaged")
		}
		return
	}
	for _, k := range profile.Keys {
		account := i.whose(k.Name, k.Protocol)
		switch {
		case account == "":
			i.skip(path, "key", k.Name, noAddress)
		case k.Key == nil:
			i.skip(path, "key", k.Name, "the key is damaged")
		case i.keys[account] != nil && i.keys[account].Fingerprint() != k.Key.Fingerprint():
			i.note(control.ImportLine{File: path, Account: account, Kind: "key", Result: "conflict", Text: fmt.Sprintf("another key of %s stands in %s; name one of the two files", account, i.file["key "+account])})
		default:
			i.keys[account], i.file["key "+account] = k.Key, path
		}
	}
	for _, k := range profile.Known {
		account := i.whose(k.Account, k.Protocol)
		contact, err := address.Bare(k.Contact)
		switch {
		case account == "":
			i.skip(path, "fingerprint", k.Account, noAddress)
		case err != nil || !strings.Contains(contact, "@"):
			i.skip(path, "fingerprint", k.Account, fmt.Sprintf("%q is no XMPP address", k.Contact))
		default:
			if i.known[account] == nil {
				i.known[account] = map[string][]keyring.KnownKey{}
			}
			i.known[account][contact] = append(i.known[account][contact], k)
			i.file["known "+account+" "+contact] = path
		}
	}
	for _, t := range profile.Tags {
		if account := i.whose(t.Name, t.Protocol); account != "" {
			i.tags[account], i.file["tag "+account] = t.Tag, path
		}
	}
}

// apply takes over what was read for one account.
func (i *importing) apply(account string) (err error) {
	a, err := i.k.Accounts.Open(account)
	if errors.Is(err, keyring.ErrLocked) {
		err = state.LockedError()
	}
	if err != nil {
		return err
	}
	if tag, ok := i.tags[account]; ok {
		moved, err := a.ImportTag(tag)
		if err != nil {
			return err
		}
		if moved == otrlayer.Imported {
			i.note(control.ImportLine{File: i.file["tag "+account], Account: account, Kind: "instance-tag", Result: string(moved), Text: "instance tag taken over"})
		}
	}
	if k := i.keys[account]; k != nil {
		moved, err := a.ImportKey(k, i.replace)
		if err != nil {
			return err
		}
		text := map[otrlayer.Moved]string{otrlayer.Imported: "key taken over, fingerprint ", otrlayer.Same: "this key is here already, fingerprint ", otrlayer.Conflict: "NOT taken over: "}[moved] + k.Fingerprint().String()
		if moved == otrlayer.Conflict {
			own, _ := a.Fingerprint()
			text += "; another key of this account is here, " + own.String() + "; --replace takes the file's, and contacts that know the other one will be told that it changed"
		}
		i.note(control.ImportLine{File: i.file["key "+account], Account: account, Kind: "key", Result: string(moved), Text: text})
	}
	contacts := make([]string, 0, len(i.known[account]))
	for contact := range i.known[account] {
		contacts = append(contacts, contact)
	}
	slices.Sort(contacts)
	defer func() { err = errors.Join(err, a.Saved()) }()
	for _, contact := range contacts {
		keys := i.known[account][contact]
		moved, err := a.ImportKnown(contact, keys, i.replace)
		if err != nil {
			return err
		}
		for n, k := range keys {
			trust := "not verified"
			if k.Trust != "" {
				trust = "verified (" + control.Clip(k.Trust) + ")"
			}
			text := map[otrlayer.Moved]string{otrlayer.Imported: "taken over, ", otrlayer.Same: "known already, ", otrlayer.Conflict: "NOT taken over, for other keys of theirs are known here and nobody has verified this one (--replace takes it); "}[moved[n]] + trust + ": " + k.Fingerprint.String()
			i.note(control.ImportLine{File: i.file["known "+account+" "+contact], Account: account, Contact: contact, Kind: "fingerprint", Result: string(moved[n]), Text: text})
		}
	}
	return nil
}

func (k *Desk) keyImport(_ context.Context, c control.Call) (control.Reply, error) {
	i := &importing{k: k, from: c.Arg("from"), replace: c.Has("replace"), keys: map[string]*keyring.PrivateKey{}, known: map[string]map[string][]keyring.KnownKey{}, tags: map[string]uint32{}, file: map[string]string{}}
	if (i.from == "") != (c.Arg("account") == "") {
		return control.Reply{}, fmt.Errorf("%w: --account and --from belong together: whose account is meant, and what the files call it", control.ErrUsage)
	}
	var err error
	if i.from != "" {
		if i.account, err = address.Bare(c.Arg("account")); err != nil || !strings.Contains(i.account, "@") {
			return control.Reply{}, fmt.Errorf("%q is no account, such as alice@example.org", c.Arg("account"))
		}
	}
	files, err := control.Unpack(c.Arg("path"))
	if err != nil {
		return control.Reply{}, err
	}
	for _, f := range files {
		i.read(f)
	}
	accounts := map[string]bool{}
	for jid := range i.keys {
		accounts[jid] = true
	}
	for jid := range i.known {
		accounts[jid] = true
	}
	for _, jid := range slices.Sorted(maps.Keys(accounts)) {
		if err := i.apply(jid); err != nil {
			i.note(control.ImportLine{Account: jid, Kind: "account", Result: "failed", Text: "NOT taken over: " + err.Error()})
		}
	}
	k.Bell.Changed()
	if len(i.lines) == 0 {
		return control.Reply{}, errors.New("there is nothing of libotr's in what was named")
	}
	var b strings.Builder
	for _, l := range i.lines {
		who := l.Account
		if l.Contact != "" {
			who += " -> " + l.Contact
		}
		fmt.Fprintf(&b, "%s: %s: %s\n", strings.TrimSpace(l.Kind+" "+causes.OneLine(who)), causes.OneLine(l.Text), causes.OneLine(filepath.Base(l.File)))
	}
	return control.Reply{Text: strings.TrimRight(b.String(), "\n"), Data: i.lines}, nil
}

func (k *Desk) keyPassphrase(_ context.Context, c control.Call) (control.Reply, error) {
	k.passing.Lock()
	defer k.passing.Unlock()
	if k.Vault.Locked() {
		return control.Reply{}, state.LockedError()
	}
	if c.Has("remove") {
		if !k.Vault.There() {
			return control.Reply{}, errors.New("the private keys are not encrypted")
		}
		k.Vault.StopSealing()
		if err := k.Accounts.SealAll(false); err != nil {
			return control.Reply{}, err
		}
		if err := k.Vault.Release(); err != nil {
			return control.Reply{}, err
		}
		return control.Did("The private keys are kept in clear again.")
	}
	if len(c.Arg("passphrase")) < state.MinPassphrase {
		return control.Reply{}, fmt.Errorf("%w: a passphrase has at least %d characters; several words are best", control.ErrUsage, state.MinPassphrase)
	}
	if err := k.Vault.Protect(c.Arg("passphrase")); err != nil {
		return control.Reply{}, err
	}
	if err := k.Accounts.SealAll(true); err != nil {
		return control.Reply{}, err
	}
	return control.Did("The private keys are encrypted. After each start nobody can log in before: otrproxy key unlock. Without the passphrase they are lost: keep a backup (otrproxy backup).")
}

func (k *Desk) keyUnlock(_ context.Context, c control.Call) (control.Reply, error) {
	k.passing.Lock()
	defer k.passing.Unlock()
	if err := k.Vault.Unlock(c.Arg("passphrase")); err != nil {
		return control.Reply{}, err
	}
	k.Log.Info("the private keys are unlocked")
	if k.Vault.Sealing() {
		if err := k.Accounts.SealAll(true); err != nil { // what a run that was ended has left
			k.Log.Warn("not all private keys are encrypted; which, and why, says: otrproxy key passphrase")
		}
	}
	k.Bell.Changed()
	return control.Did("The private keys are unlocked; clients can log in.")
}
