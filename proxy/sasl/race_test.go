package sasl

import (
	"fmt"
	"sync"
	"testing"

	"otrproxy/proxy/causes"
)

// Logins, enrolments and their ends at once leave what one of them has left.
func TestHardenedMemoryRaces(t *testing.T) {
	lo := alone(t)
	key := func(b byte) Enrolment {
		k := make([]byte, 32)
		k[0] = b
		return Enrolment{"SCRAM-SHA-256", []byte{b}, 4096, k, k, nil}
	}
	var wg sync.WaitGroup
	for i := range 50 {
		e := key(byte(i))
		wg.Go(func() { lo.enrol("alice@example.org", Enrolments{e}) })
		wg.Go(func() { lo.InStep("alice@example.org", func() *Enrolment { return &e }) })
		wg.Go(func() { lo.Stale("alice@example.org") })
		wg.Go(func() { lo.Without("alice@example.org", "SCRAM-SHA-256") })
		wg.Go(func() { lo.Admitted("alice@example.org", "SCRAM-SHA-256-PLUS tls-exporter", nil) })
		wg.Go(func() { lo.Admitted("alice@example.org", "PLAIN", nil) })
		wg.Go(func() { lo.Admitted("alice@example.org", "", causes.New(causes.FailDowngrade, nil, "x")) })
		wg.Go(func() {
			lo.Provers("example.org", "", "h")
			lo.Provers("example.org", "alice@example.org", "h")
		})
		wg.Go(func() { lo.OfferPlain(fmt.Sprint(i), ""); lo.FallenBehind() })
		if i%10 == 9 {
			wg.Wait()
			if least, _, err := lo.Least("alice@example.org"); err != nil || least != byBinding {
				t.Fatalf("%d: %v %v", i, least, err)
			}
			if _, err := lo.Enrolled("alice@example.org"); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	if err := lo.ForgetLogin("alice@example.org"); err != nil {
		t.Fatal(err)
	}
	if e, err := lo.Enrolled("alice@example.org"); e != nil || err != nil {
		t.Errorf("%v %v", e, err)
	}
}
