package proxy

import (
	"fmt"
	"sync"
	"testing"
)

// Logins, enrolments and their ends at once leave what one of them has left.
func TestHardenedMemoryRaces(t *testing.T) {
	lo := alone(t)
	key := func(b byte) enrolment {
		k := make([]byte, 32)
		k[0] = b
		return enrolment{"SCRAM-SHA-256", []byte{b}, 4096, k, k, nil}
	}
	var wg sync.WaitGroup
	for i := range 50 {
		e := key(byte(i))
		wg.Go(func() { lo.enrol("alice@example.org", enrolments{e}) })
		wg.Go(func() { lo.inStep("alice@example.org", func() *enrolment { return &e }) })
		wg.Go(func() { lo.stale("alice@example.org") })
		wg.Go(func() { lo.without("alice@example.org", "SCRAM-SHA-256") })
		wg.Go(func() { lo.admitted("alice@example.org", "SCRAM-SHA-256-PLUS tls-exporter", nil) })
		wg.Go(func() { lo.admitted("alice@example.org", "PLAIN", nil) })
		wg.Go(func() { lo.admitted("alice@example.org", "", fail(FailDowngrade, nil, "x")) })
		wg.Go(func() {
			lo.provers("example.org", "", "h")
			lo.provers("example.org", "alice@example.org", "h")
		})
		wg.Go(func() { lo.offerPlain(fmt.Sprint(i), ""); lo.fallenBehind() })
		if i%10 == 9 {
			wg.Wait()
			if least, _, err := lo.least("alice@example.org"); err != nil || least != byBinding {
				t.Fatalf("%d: %v %v", i, least, err)
			}
			if _, err := lo.enrolled("alice@example.org"); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	if err := lo.forgetLogin("alice@example.org"); err != nil {
		t.Fatal(err)
	}
	if e, err := lo.enrolled("alice@example.org"); e != nil || err != nil {
		t.Errorf("%v %v", e, err)
	}
}
