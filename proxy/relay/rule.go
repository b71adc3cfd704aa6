package relay

import (
	"otrproxy/config"
	"otrproxy/otrlayer"
	"otrproxy/proxy/accounts"
)

// A lastRule is the rule that a goroutine has asked for last: of one configuration, about one
// contact.
type lastRule struct {
	cfg     *config.Config
	contact string
	rule    *config.Rule
	as      otrlayer.Rule // the same, as the account has it
	holds   func() bool   // reports whether the configuration is in force still; nil where nobody has asked
}

// by is the rule of a configuration.
func (l *lastRule) by(cfg *config.Config, account, contact string) *config.Rule {
	if l.cfg != cfg || l.contact != contact {
		if l.cfg != cfg {
			l.holds = nil
		}
		rule := cfg.RuleFor(account, contact)
		*l = lastRule{cfg, contact, rule, accounts.RuleOf(rule), l.holds}
	}
	return l.rule
}

// both is the rule in force, and the same as the account has it.
func (l *lastRule) both(inForce func() *config.Config, account, contact string) (*config.Rule, otrlayer.Rule) {
	cfg := inForce()
	rule := l.by(cfg, account, contact)
	if l.holds == nil {
		l.holds = func() bool { return inForce() == cfg }
	}
	l.as.Holds = l.holds
	return rule, l.as
}
