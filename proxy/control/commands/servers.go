package commands

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"otrproxy/config"
	"otrproxy/proxy/address"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/control"
	"otrproxy/proxy/upstream"
)

// Servers: what they are held to, what they present, and the local CA.

func serverWords() []word {
	pinArg := control.Arg{Name: "pin", Label: "Pin: sha256:AB:CD:... or spki-sha256:..."}
	givenPin := pinArg
	givenPin.Optional = true
	return []word{
		{control.Command{Name: "pin list", Help: "lists the certificates and keys servers are held to", Reads: true, Admin: true}, (*Desk).pinList},
		{control.Command{Name: "pin show", Help: "shows how a domain's server is trusted, and its pins", Reads: true, Admin: true, Args: []control.Arg{domainArg}}, (*Desk).pinShow},
		{control.Command{Name: "pin probe", Help: "looks at what a domain's server presents now, in every format, and with --via a second time through a SOCKS proxy; nothing is trusted by that", Reads: true, Admin: true,
			Args: []control.Arg{domainArg, {Name: "via", Kind: control.Option, Label: "Also through a SOCKS proxy, such as socks5://127.0.0.1:9050"}}}, (*Desk).pinProbe},
		{control.Command{Name: "pin add", Help: "trusts a server's certificate (sha256:..) or key (spki-sha256:..); with --presented, what the server presents now", Admin: true,
			Args: []control.Arg{domainArg, givenPin, {Name: "presented", Kind: control.Flag, Label: "What the server presents now"},
				{Name: "next", Kind: control.Flag, Label: "For a change that the server's people have announced"}}}, (*Desk).pinAdd},
		{control.Command{Name: "pin remove", Help: "forgets a pin that was added or remembered", Admin: true, Args: []control.Arg{domainArg, pinArg}}, (*Desk).pinRemove},
		{control.Command{Name: "ca export", Help: "prints the certificate of the local CA, to trust in clients that check certificates", Reads: true}, (*Desk).caExport},
		{control.Command{Name: "ca show", Help: "shows the fingerprint of the local CA, to compare with what a device shows that installs it, and the page where devices get it", Reads: true}, (*Desk).caShow},
		{control.Command{Name: "doctor", Help: "checks the way from a domain's name to the login, step by step, and says what to do", Reads: true, Admin: true,
			Args: []control.Arg{{Name: "name", Label: "Domain, or account"}}}, (*Desk).examine},
	}
}

func (k *Desk) pinList(context.Context, control.Call) (control.Reply, error) {
	lines := k.Servers.Pins.List(k.Config())
	if len(lines) == 0 {
		return control.Reply{Text: "no pins yet", Data: []control.PinLine{}}, nil
	}
	return control.Reply{Text: pinText(lines), Data: lines}, nil
}

func pinText(lines []control.PinLine) string {
	var b strings.Builder
	for _, l := range lines {
		seen := ""
		if l.Seen != "" {
			seen = ", last seen " + l.Seen
		}
		fmt.Fprintf(&b, "%s %s (%s, %s%s)\n", l.Domain, l.Pin, l.Slot, l.Source, seen)
	}
	return strings.TrimRight(b.String(), "\n")
}

// named domain of a call, and what holds for it.
func (k *Desk) domainOf(c control.Call) (config.Domain, error) {
	name, err := address.Domain(c.Arg("domain"))
	if err != nil {
		return config.Domain{}, fmt.Errorf("%q is not a domain", c.Arg("domain"))
	}
	d, ok := k.Config().Domain(name)
	if !ok {
		return d, fmt.Errorf("the configuration does not allow %s; its domains are listed under \"domains\"", name)
	}
	return d, nil
}

// trustWord says what a way of trusting demands.
var trustWord = map[config.TrustMode]string{
	config.TrustPin:   "one of the pins; no CA is asked",
	config.TrustCA:    "a CA of this machine must vouch for it",
	config.TrustCAPin: "a CA of this machine must vouch for it, and it must be one of the pins",
	config.TrustDANE:  "it must be what DNS says, signed (TLSA)",
	config.TrustTOFU:  "the first use needs a CA of this machine or your word; from then on it must be the same",
}

func (k *Desk) pinShow(_ context.Context, c control.Call) (control.Reply, error) {
	d, err := k.domainOf(c)
	if err != nil {
		return control.Reply{}, err
	}
	lines := slices.DeleteFunc(k.Servers.Pins.List(k.Config()), func(l control.PinLine) bool { return l.Domain != d.Name })
	text := fmt.Sprintf("%s: trust %s (%s)", d.Name, d.Trust, trustWord[d.Trust])
	if ending := k.Servers.Ending(d.Name); ending != "" {
		text += "\n" + ending
	}
	if len(lines) == 0 {
		return control.Reply{Text: text + "\nno pins yet; see what it presents with: " + c.How("pin probe", "domain", d.Name), Data: []control.PinLine{}}, nil
	}
	return control.Reply{Text: text + "\n" + pinText(lines), Data: lines}, nil
}

// look describes what a server presents, and where that was.
func (k *Desk) look(ctx context.Context, d config.Domain) (control.Presented, upstream.Target, *causes.Failure) {
	ctx, cancel := context.WithTimeout(ctx, control.CommandLimit)
	defer cancel()
	cs, t, f := k.Servers.Presented(ctx, d)
	if f != nil {
		return control.Presented{}, t, f
	}
	cert := cs.PeerCertificates[0]
	leaf, spki := upstream.PinsOf(cert)
	out := control.Presented{Domain: d.Name, Address: t.Addr(), Via: d.Via, TLS: tls.VersionName(cs.Version), SHA256: leaf.String(), SPKI: spki.String(),
		SHA1: upstream.SHA1(cert), Subject: cert.Subject.String(), Issuer: cert.Issuer.String(), Names: cert.DNSNames,
		NotBefore: cert.NotBefore.UTC().Format(time.RFC3339), NotAfter: cert.NotAfter.UTC().Format(time.RFC3339)}
	if err := k.Servers.CheckChain(d.Name, cs.PeerCertificates); err != nil {
		out.CA = upstream.Reason(err)
	}
	for _, pin := range k.Servers.PinsFor(d) {
		out.Pinned = out.Pinned || pin == leaf || pin == spki
	}
	return out, t, nil
}

func (k *Desk) pinProbe(ctx context.Context, c control.Call) (control.Reply, error) {
	d, err := k.domainOf(c)
	if err != nil {
		return control.Reply{}, err
	}
	via := c.Arg("via")
	if via != "" {
		if err := config.CheckVia(via); err != nil {
			return control.Reply{}, fmt.Errorf("%w: %w", control.ErrUsage, err)
		}
	}
	x, t, f := k.look(ctx, d)
	if f != nil {
		return control.Reply{}, f
	}
	text, data := presentedText(x), []control.Presented{x}
	compared := ""
	if via != "" {
		there := upstream.Only(d, t)
		there.Via = via
		y, _, f := k.look(ctx, there)
		if f != nil {
			return control.Reply{}, fmt.Errorf("%s\nThe second way failed, so nothing was compared: %w", text, f)
		}
		data = append(data, y)
		compared = "\nBoth ways, straight and through " + via + ", lead to the same certificate."
		if d.Via != "" {
			compared = "\nBoth ways, through " + d.Via + " and through " + via + ", lead to the same certificate."
		}
		if y.SHA256 != x.SHA256 {
			return control.Reply{Text: text + "\n\nBUT THROUGH " + via + " ANOTHER ONE IS PRESENTED:\n" + presentedText(y) +
				"\nSomebody on one of the ways may be in between, or the server has several certificates. Trust neither before the people who run the server have told you theirs.", Data: data}, nil
		}
	}
	pinned := "It is not pinned."
	if x.Pinned {
		pinned = "It satisfies a pin that is in force."
	}
	return control.Reply{Text: text + compared + "\n" + pinned + " Compare the fingerprint with the people who run the server, then: " + c.How("pin add", "domain", d.Name, "pin", x.SHA256), Data: data}, nil
}

func presentedText(x control.Presented) string {
	vouched := "vouched for by a CA of this machine"
	if x.CA != "" {
		vouched = "NOT vouched for by any CA of this machine (" + x.CA + ")"
	}
	at := x.Address
	if x.Via != "" {
		at += " through " + x.Via
	}
	return fmt.Sprintf("%s at %s, %s\n%s\n%s\nSHA-1, to compare with old notes only: %s\nmade for %s by %s, valid from %s to %s; %s",
		x.Domain, at, x.TLS, x.SHA256, x.SPKI, x.SHA1, causes.OneLine(x.Subject), causes.OneLine(x.Issuer), x.NotBefore, x.NotAfter, vouched)
}

func (k *Desk) pinAdd(ctx context.Context, c control.Call) (control.Reply, error) {
	d, err := k.domainOf(c)
	if err != nil {
		return control.Reply{}, err
	}
	var pin config.Pin
	switch {
	case c.Has("presented") && c.Arg("pin") != "":
		return control.Reply{}, fmt.Errorf("%w: either a pin or --presented, not both", control.ErrUsage)
	case c.Has("presented"):
		x, _, f := k.look(ctx, d)
		if f != nil {
			return control.Reply{}, f
		}
		pin, err = config.ParsePin(x.SHA256)
	case c.Arg("pin") == "":
		return control.Reply{}, fmt.Errorf("%w: a domain and a pin are needed, or --presented; %s shows what the server presents", control.ErrUsage, c.How("pin probe", "domain", d.Name))
	default:
		pin, err = config.ParsePin(c.Arg("pin"))
	}
	if err != nil {
		return control.Reply{}, err
	}
	slot := upstream.SlotCurrent
	if c.Has("next") {
		slot = upstream.SlotNext
		now := slices.DeleteFunc(slices.Concat(d.Pins, k.Servers.Pins.Current(d.Name)), func(x config.Pin) bool { return x == pin })
		if len(now) == 0 && d.Trust != config.TrustCA && d.Trust != config.TrustDANE {
			return control.Reply{}, fmt.Errorf("no other pin is in force for %s, and with one for later alone its server would be refused now; first: %s", d.Name, c.How("pin add", "domain", d.Name, "pin", "PIN"))
		}
	}
	if err := k.Servers.Pins.Add(d.Name, pin, slot); err != nil {
		return control.Reply{}, err
	}
	k.Servers.Forgive()
	k.Bell.Changed()
	r, err := control.Did("%s is held to %s", d.Name, pin)
	switch d.Trust {
	case config.TrustDANE:
		r.Text += "; but its trust is \"dane\", where pins do not count: set trust to pin, ca+pin or tofu in the configuration"
	case config.TrustCA:
		r.Text += "; but its trust is \"ca\", where pins do not count: set trust to ca+pin, pin or tofu in the configuration"
	case config.TrustTOFU:
		if have := k.Servers.Pins.Of(d.Name); len(have) > 1 {
			r.Text += fmt.Sprintf(", or to %s", control.Plural(len(have)-1, "other pin"))
		}
	}
	return r, err
}

func (k *Desk) pinRemove(_ context.Context, c control.Call) (control.Reply, error) {
	domain, err := address.Domain(c.Arg("domain"))
	if err != nil {
		return control.Reply{}, fmt.Errorf("%q is not a domain", c.Arg("domain"))
	}
	pin, err := config.ParsePin(c.Arg("pin"))
	if err != nil {
		return control.Reply{}, err
	}
	ok, err := k.Servers.Pins.Remove(domain, pin)
	if err != nil {
		return control.Reply{}, err
	}
	if !ok {
		return control.Reply{}, errors.New("there is no such pin; those in the configuration are removed there (" + c.How("pin list") + ")")
	}
	k.Servers.Forgive()
	k.Bell.Changed()
	return control.Did("%s is not held to %s any more", domain, pin)
}

func (k *Desk) caExport(context.Context, control.Call) (control.Reply, error) {
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Machine.CA.Cert.Raw}))
	sum := sha256.Sum256(k.Machine.CA.Cert.Raw)
	return control.Reply{Text: strings.TrimRight(text, "\n"), Data: []map[string]string{{"pem": text, "sha256": config.ColonHex(sum[:])}}}, nil
}
