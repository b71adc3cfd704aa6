package main

import (
	"fmt"
	"io"
	"strings"

	"otrproxy/config"
	"otrproxy/confine"
	"otrproxy/proxy"
)

// check prints what a configuration means.
func check(w io.Writer, cfg *config.Config) error {
	if err := proxy.Supported(cfg); err != nil {
		where := cfg.File
		if where == "" {
			where = "default configuration"
		}
		return wrongUsage{fmt.Errorf("%s: %w", where, err)}
	}
	if cfg.File == "" {
		fmt.Fprintln(w, "no configuration file: these are the defaults")
	} else {
		fmt.Fprintln(w, cfg.File, "is sound; in force would be:")
	}
	checkPlaces(w, cfg)
	checkRules(w, cfg)
	checkAccess(w, cfg)
	checkBeside(w, cfg)
	return nil
}

// checkPlaces prints where it listens, and which servers it reaches how.
func checkPlaces(w io.Writer, cfg *config.Config) {
	for _, a := range cfg.Listen {
		how := "TLS only (not loopback)"
		if config.Loopback(a) {
			how = "plain, STARTTLS, direct TLS, WebSocket and SOCKS5"
		}
		fmt.Fprintf(w, "listen   %s, %s\n", a, how)
	}
	if len(cfg.Names) > 0 {
		fmt.Fprintf(w, "names    %s, besides the addresses listened on\n", strings.Join(cfg.Names, ", "))
	}
	fmt.Fprintf(w, "state    %s\n", cfg.State)
	if len(cfg.Domains) == 0 {
		fmt.Fprintln(w, "domain   any, trust: tofu")
	}
	for name, d := range cfg.Domains {
		where := d.Connect
		switch {
		case where != "":
		case d.Via != "":
			where = "its own name"
		default:
			where = "as DNS says"
		}
		if d.Via != "" {
			where += " through " + d.Via + " alone"
		}
		fmt.Fprintf(w, "domain   %s: %s, tls: %s, trust: %s, %d pins\n", name, where, d.TLS, d.Trust, len(d.Pins))
	}
}

// checkRules prints whose word counts, and what may leave.
func checkRules(w io.Writer, cfg *config.Config) {
	if len(cfg.Admins) > 0 {
		fmt.Fprintf(w, "admins   %s\n", strings.Join(cfg.Admins, ", "))
	}
	if len(cfg.Origins) > 0 {
		fmt.Fprintf(w, "origins  %s, besides pages of this machine\n", strings.Join(cfg.Origins, ", "))
	}
	for _, r := range cfg.OTR {
		beside := ""
		if r.Drop {
			beside = ", clear text dropped"
		}
		if r.Reason != "" {
			beside += fmt.Sprintf(", because: %q", r.Reason)
		}
		fmt.Fprintf(w, "otr      %s -> %s: %s, allow %v%s (line %d)\n", r.Account, r.Contact, r.Policy, r.Allow, beside, r.Line)
	}
	r := cfg.RuleFor("", "")
	if len(cfg.OTR) == 0 || r.Line == 0 {
		fmt.Fprintf(w, "otr      everybody else: require, allow %v\n", (&config.Config{}).RuleFor("", "").Allow)
	}
	fmt.Fprintf(w, "hold     %d messages, %d bytes, for %s, for %s while a contact is offline\n", cfg.Hold.Messages, cfg.Hold.Bytes, cfg.Hold.For, cfg.Hold.Offline)
}

// checkAccess prints who may use it, and how much.
func checkAccess(w io.Writer, cfg *config.Config) {
	for _, a := range cfg.Access {
		from, what := "anywhere", "may use this proxy"
		if len(a.From) > 0 {
			from = strings.Trim(fmt.Sprint(a.From), "[]")
		}
		if a.Refuse != "" {
			what = fmt.Sprintf("may not: %q", a.Refuse)
		}
		fmt.Fprintf(w, "access   %s from %s %s (line %d)\n", a.Account, from, what, a.Line)
	}
	if len(cfg.Access) > 0 {
		fmt.Fprintln(w, "access   nobody else")
	}
	l := cfg.Limits
	fmt.Fprintf(w, "limits   %d sessions, %d of an account; %d connections from another machine, %d before the login, %s for it\n", l.Sessions, l.PerAccount, l.PerAddress, l.Pending, l.Login)
	fmt.Fprintf(w, "limits   %d stanzas a second of a client, %d bytes each; %d bytes of memory\n", l.Rate, l.Stanza, l.Memory)
}

// checkBeside prints what it serves beside clients.
func checkBeside(w io.Writer, cfg *config.Config) {
	if cfg.Web != "" {
		fmt.Fprintf(w, "web      http://%s/ (otrproxy web makes a link)\n", cfg.Web)
	}
	if cfg.Onboarding != "" {
		fmt.Fprintf(w, "devices  http://%s/ (otrproxy ca show prints what to compare)\n", cfg.Onboarding)
	}
	if len(cfg.Notify.Command) > 0 {
		fmt.Fprintf(w, "notify   %q on %s\n", cfg.Notify.Command, strings.Join(cfg.Notify.Events, ", "))
	}
	fmt.Fprintf(w, "confine  %s; here: %s\n", cfg.Confine, confine.Available())
	if cfg.Metrics != "" {
		fmt.Fprintf(w, "metrics  http://%s/metrics\n", cfg.Metrics)
	}
}
