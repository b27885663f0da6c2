//go:build !locule_static

package liblocule

// #cgo pkg-config: locule
import "C"
