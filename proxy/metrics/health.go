package metrics

import (
	"encoding/json"
	"net/http"
)

// Whether the proxy can do what it is there for, for those who watch it: at /health beside
// the figures, and among them. It names nobody.
//
// That limits.sessions is reached is not among the causes: who restarts what is not well
// would end everybody's session because of a flood.

// An Illness is why the proxy is not well.
type Illness string

// What the proxy may suffer from.
const (
	IllListening Illness = "not-accepting"      // an address is not listened on, or accepting fails
	IllState     Illness = "state-not-writable" // the disk is full, or the directory has gone
	IllLocked    Illness = "keys-locked"        // nobody has given the passphrase
)

var illnesses = []Illness{IllListening, IllState, IllLocked}

// health answers those who watch.
func health(w http.ResponseWriter, r *http.Request, ills []Illness) {
	answer := struct {
		Status string    `json:"status"`
		Causes []Illness `json:"causes,omitempty"`
	}{"ok", ills}
	status := http.StatusOK
	if len(answer.Causes) > 0 {
		answer.Status, status = "not well", http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		json.NewEncoder(w).Encode(answer)
	}
}
