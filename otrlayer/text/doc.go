// Package text is what stands inside the messages of OTR, and how the proxy speaks.
//
//	payload.go  text as programs put it into a data message, and read it there: HTML for some
//	voice.go    the mark with which the proxy speaks, which nobody else may imitate
//	looks.go    which characters look alike (made by looks_gen.go)
//	glance.go   finds out fast that a text imitates nothing, as most do
//
// Pure: it owns nothing that changes, and must not know accounts, contacts or files.
package text
