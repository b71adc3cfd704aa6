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
}

// by is the rule of a configuration.
func (l *lastRule) by(cfg *config.Config, account, contact string) *config.Rule {
	if l.cfg != cfg || l.contact != contact {
		rule := cfg.RuleFor(account, contact)
		*l = lastRule{cfg, contact, rule, accounts.RuleOf(rule)}
	}
	return l.rule
}

// both is by, and the same as the account has it.
func (l *lastRule) both(cfg *config.Config, account, contact string) (*config.Rule, otrlayer.Rule) {
	return l.by(cfg, account, contact), l.as
}
