package proxy

import "time"

func init() {
	workFactor, maxBackup = 10, 32<<20 // else the tests spend their time on guessing costs
	hookLimit = time.Hour              // what ends sooner was not ended by it
}

// HookLimit has each run of the command of "notify" end after d, until restore is called.
func HookLimit(d time.Duration) (restore func()) {
	old := hookLimit
	hookLimit = d
	return func() { hookLimit = old }
}
