// Package causes has the closed sets of why somebody was not served: why a server could not be
// used (Failure), and why a client was sent away (Refusal). Stream errors, the log, the figures
// and the pages draw from these, and from nothing else. What others wrote stands in them as part
// of a line of ours only.
//
// Pure: it owns nothing, and must not know who fails.
package causes
