package causes

// A Refusal says why a client was sent away, or made to wait, before anything of its
// messages was looked at. It is a closed set.
type Refusal string

// The causes.
const (
	RefusedSessions Refusal = "sessions" // limits.sessions are served
	RefusedAddress  Refusal = "address"  // limits.per_address come from there
	RefusedArrivals Refusal = "arrivals" // too many come from there in too short a time
	RefusedPending  Refusal = "pending"  // it had not logged in, and others wanted its place
	RefusedAccount  Refusal = "account"  // limits.per_account of the account are served
	RefusedAccounts Refusal = "accounts" // limits.accounts are kept, and it is none of them
	RefusedLogins   Refusal = "logins"   // too many wrong passwords
	RefusedAccess   Refusal = "access"   // the configuration does not let them in
	RefusedMemory   Refusal = "memory"   // limits.memory is used up
	RefusedFiles    Refusal = "files"    // the system gives no more file descriptors
	RefusedRate     Refusal = "rate"     // its stanzas come faster than limits.rate, and wait
)

// Refusals is the closed set, for metrics that exist from the start.
var Refusals = []Refusal{RefusedSessions, RefusedAddress, RefusedArrivals, RefusedPending, RefusedAccount, RefusedAccounts, RefusedLogins,
	RefusedAccess, RefusedMemory, RefusedFiles, RefusedRate}

// RefusalText is what clients are told that have said nothing yet.
var RefusalText = map[Refusal]string{
	RefusedSessions: "otrproxy serves as many sessions as its configuration allows (limits.sessions).",
	RefusedAddress:  "otrproxy serves as many sessions from your address as its configuration allows (limits.per_address).",
	RefusedArrivals: "Too many connections come from your address; wait a moment.",
	RefusedMemory:   "otrproxy uses as much memory as its configuration allows (limits.memory); try again later.",
	RefusedFiles:    "The machine of otrproxy has no room for more connections; try again later.",
}
