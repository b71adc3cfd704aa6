package commands

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/otrlayer/keyring"
	"otrproxy/proxy/address"
	"otrproxy/proxy/causes"
	"otrproxy/proxy/control"
	"otrproxy/proxy/hostname"
	"otrproxy/proxy/journal"
	"otrproxy/proxy/sasl"
	"otrproxy/proxy/upstream"
)

// The doctor walks the way of a login, from the name to the mechanisms, and goes on past
// a failure as far as that makes sense. Each step is ok, warn or fail, and what is not ok
// comes with what to do.

// A diagnosis is what the doctor has found.
type diagnosis struct{ checks []control.Check }

func (d *diagnosis) ok(step, format string, args ...any) {
	d.checks = append(d.checks, control.Check{Step: step, Result: "ok", Text: fmt.Sprintf(format, args...)})
}

func (d *diagnosis) warn(step, remedy, format string, args ...any) {
	d.checks = append(d.checks, control.Check{Step: step, Result: "warn", Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (d *diagnosis) fail(step, remedy, format string, args ...any) {
	d.checks = append(d.checks, control.Check{Step: step, Result: "fail", Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

// reply tells people, too.
func (d *diagnosis) reply() control.Reply {
	var b strings.Builder
	for _, c := range d.checks {
		fmt.Fprintf(&b, "%-4s  %-12s %s\n", c.Result, c.Step, c.Text)
		if c.Remedy != "" {
			fmt.Fprintf(&b, "      %-12s -> %s\n", "", c.Remedy)
		}
	}
	return control.Reply{Text: strings.TrimRight(b.String(), "\n"), Data: d.checks}
}

// A doctor examines the way to a server, with or without a running proxy.
type doctor struct {
	config  *config.Config
	servers *upstream.Servers
	localCA *x509.Certificate // nil where there is none yet
	desk    *Desk             // of the running proxy; nil for none
}

func (k *Desk) examine(ctx context.Context, c control.Call) (control.Reply, error) {
	dc := &doctor{config: k.Config(), servers: k.Servers, localCA: k.Machine.CA.Cert, desk: k}
	return dc.examine(ctx, c)
}

// examine is the doctor's command.
func (dc *doctor) examine(ctx context.Context, c control.Call) (control.Reply, error) {
	name := c.Arg("name")
	domain, account := name, ""
	if strings.Contains(name, "@") {
		var err error
		if account, err = address.Bare(name); err != nil {
			return control.Reply{}, err
		}
		domain = address.DomainOf(account)
	}
	domain, err := address.Domain(domain)
	if err != nil {
		return control.Reply{}, fmt.Errorf("%q is neither a domain, such as example.org, nor an account, such as alice@example.org", control.Clip(name))
	}
	d := &diagnosis{}
	if dc.desk == nil {
		d.warn("proxy", "otrproxy run", "does not run, or not with the state directory %s", dc.config.State)
	} else {
		for _, a := range dc.desk.Addrs() {
			d.ok("proxy", "runs, and listens on %s", a)
		}
	}
	if how, ok := dc.config.Domain(domain); ok {
		dc.examineServer(ctx, d, how, c)
	} else {
		d.fail("domain", "add it under \"domains\" in "+dc.config.File+", then: "+c.How("reload"), "the configuration does not allow %s", domain)
	}
	if account != "" && dc.desk != nil {
		dc.examineAccount(d, account, c)
	}
	return d.reply(), nil
}

// examineServer walks the way to a domain's server.
func (dc *doctor) examineServer(ctx context.Context, d *diagnosis, how config.Domain, c control.Call) {
	ctx, cancel := context.WithTimeout(ctx, control.CommandLimit)
	defer cancel()
	d.ok("domain", "%s: trust %s, tls %s", how.Name, how.Trust, how.TLS)
	places, f := dc.servers.Targets(ctx, how)
	if f != nil {
		d.fail("dns", "ask the people who run the server, or set \"connect\" for the domain in the configuration", "%s", f.Text)
		return
	}
	switch {
	case how.Connect != "":
		d.ok("dns", "not asked: the configuration names %s", how.Connect)
	case how.Via != "":
		d.warn("dns", "if it does not answer there, set \"connect\" for the domain in the configuration", "not asked, for others would learn of it; trying %s itself through %s", how.Name, how.Via)
	case len(places) == 1 && places[0].Host == hostname.ASCII(how.Name):
		d.warn("dns", "if it does not answer there, set \"connect\" for the domain in the configuration", "there is no SRV record for %s; trying %s itself", how.Name, places[0].Addr())
	default:
		var list []string
		for _, t := range places {
			list = append(list, t.String())
		}
		d.ok("dns", "SRV: %s", strings.Join(list, ", "))
	}
	cs, place, ok := dc.examinePlaces(ctx, d, how, places)
	if !ok {
		return
	}
	if !dc.examineCertificate(ctx, d, how, place, cs, c) {
		d.warn("login", "mend the step above first", "not tried, for nothing is sent to a server that is not the right one")
		return
	}
	dc.examineLogin(ctx, d, how, place, cs.PeerCertificates[0])
}

// examinePlaces tries each place, up to the end of the TLS handshake.
func (dc *doctor) examinePlaces(ctx context.Context, d *diagnosis, how config.Domain, places []upstream.Target) (cs tls.ConnectionState, place upstream.Target, ok bool) {
	for _, t := range places {
		conn, f := dc.servers.DialTarget(ctx, how, "", t)
		switch {
		case f == nil:
		case f.Cause == causes.FailVia:
			d.fail("tcp", "start the SOCKS proxy, or correct \"via\" for the domain in the configuration", "%s", f.Text)
			return cs, place, false
		case f.Cause == causes.FailDNS:
			d.fail("tcp", "check the spelling of the domain, or set \"connect\" for it in the configuration", "there is no host %s", t.Host)
			continue
		case how.Via != "":
			d.fail("tcp", "set \"connect\" for the domain in the configuration to where the server is", "%s", f.Text)
			continue
		default:
			d.fail("tcp", "is this machine online, and does a firewall let port "+fmt.Sprint(t.Port)+" through? Else ask the people who run the server", "%s does not answer: %s", t.Addr(), causes.Short(f.Err))
			continue
		}
		conn.Close()
		d.ok("tcp", "%s answers", t.Addr())
		seen, _, f := dc.servers.Presented(ctx, upstream.Only(how, t))
		if f != nil {
			remedy := "ask the people who run the server"
			if f.Cause == causes.FailStripped {
				remedy = "try another network: somebody on this one may be removing the encryption"
			}
			d.fail("tls", remedy, "%s", f.Text)
			continue
		}
		if seen.Version < tls.VersionTLS13 {
			d.warn("tls", "ask the people who run the server for TLS 1.3", "%s, the older version", tls.VersionName(seen.Version))
		} else {
			d.ok("tls", "%s, %s", tls.VersionName(seen.Version), tls.CipherSuiteName(seen.CipherSuite))
		}
		if !ok {
			cs, place, ok = seen, t, true
		}
		break // what a login would use
	}
	return cs, place, ok
}

// examineCertificate reports whether a login would go on.
func (dc *doctor) examineCertificate(ctx context.Context, d *diagnosis, how config.Domain, place upstream.Target, cs tls.ConnectionState, c control.Call) bool {
	cert := cs.PeerCertificates[0]
	leaf, spki := upstream.PinsOf(cert)
	add := c.How("pin add", "domain", how.Name, "pin", leaf.String())
	now := time.Now()
	switch left := cert.NotAfter.Sub(now); {
	case now.Before(cert.NotBefore):
		d.warn("certificate", "is this machine's clock right?", "not valid before %s", cert.NotBefore.Format(time.DateOnly))
	case left < 0:
		d.warn("certificate", "ask the people who run the server", "expired on %s", cert.NotAfter.Format(time.DateOnly))
	case left < 7*24*time.Hour:
		d.warn("certificate", "the people who run the server should renew it soon; if it is pinned, have them tell you the next one: otrproxy pin add --next", "expires on %s", cert.NotAfter.Format(time.DateOnly))
	default:
		d.ok("certificate", "%s, until %s", leaf, cert.NotAfter.Format(time.DateOnly))
	}
	if how.Trust == config.TrustDANE {
		said, f := dc.servers.SaysDNS(ctx, how, place)
		if f == nil {
			_, f = dc.servers.Vouched(how, cs.PeerCertificates, said)
		}
		if f != nil {
			d.fail("dane", "ask the people who run the server, or set another trust for the domain in the configuration", "%s", f.Text)
			return false
		}
		d.ok("dane", "it is what DNS says, signed (TLSA)")
		return true
	}
	chain := dc.servers.CheckChain(how.Name, cs.PeerCertificates)
	switch {
	case chain == nil:
		d.ok("ca", "a CA of this machine vouches for it")
	case how.Trust == config.TrustPin:
		d.ok("ca", "not asked (trust: pin); none of this machine would vouch for it: %s", upstream.Reason(chain))
	case how.Trust == config.TrustTOFU:
		d.warn("ca", "compare the fingerprint with the people who run the server, and then: "+add, "no CA of this machine vouches for it: %s", upstream.Reason(chain))
	default:
		d.fail("ca", "install the CA on this machine, or use trust: pin with a fingerprint that you compared", "no CA of this machine vouches for it: %s", upstream.Reason(chain))
	}
	pins := dc.servers.PinsFor(how)
	held := slices.Contains(pins, leaf) || slices.Contains(pins, spki)
	switch {
	case held:
		d.ok("pin", "it is the one that is pinned")
	case how.Trust == config.TrustCA:
		d.warn("pin", "set trust to ca+pin or tofu, and any CA in the world cannot vouch for somebody else", "not asked (trust: ca)")
		held = chain == nil
	case len(pins) > 0:
		d.fail("pin", "ask the people who run the server whether they changed it; only if they did: "+add, "it is NOT the one that is pinned: presented %s (%s)", leaf, spki)
	case how.Trust == config.TrustTOFU && chain == nil:
		d.ok("pin", "none yet; the first login will remember %s", spki)
		held = true
	default:
		d.fail("pin", "compare it with the people who run the server, and then: "+add, "none yet, and nothing else vouches for it")
	}
	return held && (how.Trust == config.TrustPin || how.Trust == config.TrustTOFU || chain == nil)
}

// examineLogin looks at what the server offers over the checked connection.
func (dc *doctor) examineLogin(ctx context.Context, d *diagnosis, how config.Domain, place upstream.Target, cert *x509.Certificate) {
	// The certificate has been judged; it must be the same, and nothing is remembered.
	leaf, _ := upstream.PinsOf(cert)
	how = upstream.Only(how, place)
	how.Trust, how.Pins = config.TrustPin, []config.Pin{leaf}
	u, f := dc.servers.Connect(ctx, how, "")
	if f != nil {
		d.fail("login", "", "%s", f.Text)
		return
	}
	defer u.Conn.Close()
	offered, _ := (&sasl.Server{Leg: u}).Offered()
	usable := slices.DeleteFunc(slices.Clone(offered), func(m string) bool { return !strings.HasPrefix(m, "SCRAM-SHA-") })
	plus := slices.ContainsFunc(usable, func(m string) bool { return strings.HasSuffix(m, "-PLUS") })
	switch {
	case len(usable) > 0 && plus:
		d.ok("login", "%s; the login is bound to this very connection", strings.Join(usable, ", "))
	case len(usable) > 0:
		d.warn("login", "nothing to do here: the server has no channel binding for this kind of TLS", "%s; not bound to the connection", strings.Join(usable, ", "))
	case slices.Contains(offered, "PLAIN") && how.PlainUpstream:
		d.warn("login", "ask the people who run the server for SCRAM", "only PLAIN, which hands the server the password (plain_upstream allows it)")
	case slices.Contains(offered, "PLAIN"):
		d.fail("login", "ask the people who run the server for SCRAM, or set plain_upstream: true for the domain", "the server offers only PLAIN, which would hand it the password")
	default:
		d.fail("login", "ask the people who run the server", "the server offers nothing that can be used: %s", strings.Join(offered, ", "))
	}
	if _, ok := u.Features.Root().Child(upstream.NSRegisterFeature, "register"); ok {
		d.ok("register", "accounts can be made from the client")
	}
}

// examineAccount looks at what is here of an account.
func (dc *doctor) examineAccount(d *diagnosis, account string, c control.Call) {
	var a *otrlayer.Account
	var err error
	known := slices.Contains(dc.desk.Accounts.Known(), account)
	if known { // else it would be made
		a, err = dc.desk.Accounts.Open(account)
	}
	switch {
	case !known:
		d.warn("key", "it is made at the first login; or now: "+c.How("key generate", "account", account), "there is none yet")
	case errors.Is(err, keyring.ErrLocked):
		d.fail("key", c.How("key unlock"), "the private keys are locked")
	case err != nil:
		d.fail("key", "", "%v", err)
	default:
		if fp, ok := a.Fingerprint(); ok {
			d.ok("key", "%s", fp)
		} else {
			d.warn("key", "it is made at the first login; or now: "+c.How("key generate", "account", account), "there is none yet")
		}
	}
	if list := dc.desk.Relay.SessionsOf(account); len(list) > 0 {
		d.ok("client", "%s connected", control.Plural(len(list), "client"))
	} else {
		d.warn("client", "set the client's connect host to one of the addresses above, with the account and password as they are; docs/clients.md has each client", "nobody is logged in as %s", account)
	}
	if dc.localCA != nil && time.Until(dc.localCA.NotAfter) < 30*24*time.Hour {
		d.warn("local ca", "move ca.pem and ca.key away and start otrproxy anew; clients that trust it must trust the new one", "the local CA expires on %s", dc.localCA.NotAfter.Format(time.DateOnly))
	}
}

// Doctor examines a name without a running proxy. Nothing is written.
func Doctor(ctx context.Context, cfg *config.Config, log *journal.Journal, by upstream.Network, name string) (control.Reply, error) {
	pins, err := upstream.OpenPins(cfg.State)
	if err != nil {
		return control.Reply{}, err
	}
	inForce := func() *config.Config { return cfg }
	dc := &doctor{config: cfg, servers: upstream.New(inForce, log, pins, by)}
	if b, err := os.ReadFile(filepath.Join(cfg.State, "ca.pem")); err == nil {
		if block, _ := pem.Decode(b); block != nil {
			if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
				dc.localCA = cert
			}
		}
	}
	dc.servers.LocalCA = dc.localCA
	return tableOf(func(task) func(context.Context, control.Call) (control.Reply, error) { return dc.examine }).Run(ctx, control.Actor{Place: control.InShell}, "doctor", map[string]string{"name": name})
}
