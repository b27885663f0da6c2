//go:build locule_static

package liblocule

// The archive comes first and defines everything, so that of the libraries pkg-config names
// --as-needed leaves out liblocule.so.

// #cgo pkg-config: --static locule
// #cgo LDFLAGS: -l:liblocule.a -Wl,--as-needed
import "C"
