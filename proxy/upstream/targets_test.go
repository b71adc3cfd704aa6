package upstream

import (
	"testing"

	"otrproxy/config"
)

// An onion address in letters that mean the same goes nowhere without via.
func TestHardenedOnionSpelled(t *testing.T) {
	p := reaching(config.Default(), Network{})
	for _, at := range []string{"abc.onion:5222", "abc.ONION.:5222", "abc.ｏnion:5222", "abc。onion:5222"} {
		if places, f := p.Targets(t.Context(), config.Domain{Name: "example.org", Connect: at, TLS: config.TLSAuto}); f == nil {
			t.Errorf("%s: %v", at, places)
		}
	}
}
