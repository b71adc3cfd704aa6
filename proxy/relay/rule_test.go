package relay

import (
	"testing"

	"otrproxy/config"
)

// A rule holds as long as its configuration is in force, whoever has asked for a newer one since.
func TestRuleHoldsUntilReload(t *testing.T) {
	cfg := config.Default()
	inForce := func() *config.Config { return cfg }
	var l lastRule
	_, before := l.both(inForce, "alice@x", "bob@y")
	if !before.Holds() {
		t.Error("a rule does not hold")
	}
	cfg = config.Default()
	l.by(cfg, "alice@x", "bob@y")
	if before.Holds() {
		t.Error("a rule of before holds still")
	}
	if _, after := l.both(inForce, "alice@x", "carol@y"); !after.Holds() || before.Holds() {
		t.Error("the rule of now does not hold, or that of before does")
	}
}
