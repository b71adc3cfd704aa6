package proxy

import (
	"fmt"
	"sync"
	"testing"

	"otrproxy/config"
)

// Logins, enrolments and their ends at once leave what one of them has left.
func TestHardenedMemoryRaces(t *testing.T) {
	cfg := config.Default()
	cfg.State = t.TempDir() + "/s"
	p, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Shutdown(0)
	key := func(b byte) enrolment {
		k := make([]byte, 32)
		k[0] = b
		return enrolment{"SCRAM-SHA-256", []byte{b}, 4096, k, k, nil}
	}
	var wg sync.WaitGroup
	for i := range 50 {
		e := key(byte(i))
		wg.Go(func() { p.logins.enrol("alice@example.org", enrolments{e}) })
		wg.Go(func() { p.logins.inStep("alice@example.org", func() *enrolment { return &e }) })
		wg.Go(func() { p.logins.stale("alice@example.org") })
		wg.Go(func() { p.logins.without("alice@example.org", "SCRAM-SHA-256") })
		wg.Go(func() { p.logins.admitted("alice@example.org", "SCRAM-SHA-256-PLUS tls-exporter", nil) })
		wg.Go(func() { p.logins.admitted("alice@example.org", "PLAIN", nil) })
		wg.Go(func() { p.logins.admitted("alice@example.org", "", fail(FailDowngrade, nil, "x")) })
		wg.Go(func() {
			p.logins.provers("example.org", "", "h")
			p.logins.provers("example.org", "alice@example.org", "h")
		})
		wg.Go(func() { p.logins.offerPlain(fmt.Sprint(i), ""); p.desk.serverDecisions() })
		if i%10 == 9 {
			wg.Wait()
			if least, _, err := p.logins.least("alice@example.org"); err != nil || least != byBinding {
				t.Fatalf("%d: %v %v", i, least, err)
			}
			if _, err := p.logins.enrolled("alice@example.org"); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	if err := p.logins.forgetLogin("alice@example.org"); err != nil {
		t.Fatal(err)
	}
	if e, err := p.logins.enrolled("alice@example.org"); e != nil || err != nil {
		t.Errorf("%v %v", e, err)
	}
}
