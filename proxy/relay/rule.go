package relay

import (
	"otrproxy/config"
)

// A lastRule is the rule that a goroutine has asked for last: of one configuration, about one
// contact.
type lastRule struct {
	cfg     *config.Config
	contact string
	rule    *config.Rule
}

// by is the rule of a configuration.
func (l *lastRule) by(cfg *config.Config, account, contact string) *config.Rule {
	if l.cfg != cfg || l.contact != contact {
		*l = lastRule{cfg, contact, cfg.RuleFor(account, contact)}
	}
	return l.rule
}
