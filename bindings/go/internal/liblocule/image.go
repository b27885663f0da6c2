package liblocule

// #include <locule.h>
//
// extern int loculeGoProgress(struct locule_image_progress *progress, uintptr_t user);
//
// static int progress(const struct locule_image_progress *progress, void *user)
// {
//     return loculeGoProgress((struct locule_image_progress *)progress, (uintptr_t)user);
// }
//
// // A cgo.Handle is a number, which Go must never see as a pointer.
// static void progress_to(struct locule_image_opts *opts, uintptr_t user)
// {
//     opts->progress = progress;
//     opts->progress_user = (void *)user;
// }
import "C"

import (
	"runtime"
	"runtime/cgo"
	"unsafe"
)

// Flags and kinds of locule.h.
const (
	ImageStoreReadOnly = C.LOCULE_IMAGE_STORE_READ_ONLY
	PruneAll           = C.LOCULE_PRUNE_ALL

	CompressionGzip = C.LOCULE_COMPRESSION_GZIP
	CompressionZstd = C.LOCULE_COMPRESSION_ZSTD
	CompressionNone = C.LOCULE_COMPRESSION_NONE

	OwnerAuto   = C.LOCULE_OWNER_AUTO
	OwnerImage  = C.LOCULE_OWNER_IMAGE
	OwnerCaller = C.LOCULE_OWNER_CALLER

	ImageStepFetch  = C.LOCULE_IMAGE_STEP_FETCH
	ImageStepUnpack = C.LOCULE_IMAGE_STEP_UNPACK
	ImageStepSave   = C.LOCULE_IMAGE_STEP_SAVE
	ImageStepPush   = C.LOCULE_IMAGE_STEP_PUSH
	ImageStepPack   = C.LOCULE_IMAGE_STEP_PACK
)

// ImageProgress is a locule_image_progress.
type ImageProgress struct {
	Step        uint32
	Digest      string
	Done, Total uint64
	Finished    bool
}

// ImageOptions are the fields of locule_image_opts. Empty strings and 0 are the defaults.
type ImageOptions struct {
	Name, From, Platform             string
	Username, Password               string
	AuthFile, CAFile, RegistriesFile string
	Config                           []byte
	Author, Comment, Created         string
	Compression, Owner               uint32
	MaxBytes, MaxEntries, MaxRatio   uint64
	Flags                            uint64
	TimeoutMS                        uint32
	Cancel                           *Cancel
	// Called while the call waits, on another goroutine. Its error stops the call.
	Progress func(ImageProgress) error
}

func (o *ImageOptions) lower(m *memory) C.struct_locule_image_opts {
	return C.struct_locule_image_opts{
		size:            C.sizeof_struct_locule_image_opts,
		flags:           C.uint64_t(o.Flags),
		name:            m.string(o.Name),
		from:            m.string(o.From),
		platform:        m.string(o.Platform),
		timeout_ms:      C.uint32_t(o.TimeoutMS),
		compression:     C.uint32_t(o.Compression),
		username:        m.string(o.Username),
		password:        m.string(o.Password),
		auth_file:       m.string(o.AuthFile),
		ca_file:         m.string(o.CAFile),
		registries_file: m.string(o.RegistriesFile),
		config_json:     m.bytes(o.Config),
		config_json_len: C.size_t(len(o.Config)),
		author:          m.string(o.Author),
		comment:         m.string(o.Comment),
		created:         m.string(o.Created),
		max_bytes:       C.uint64_t(o.MaxBytes),
		max_entries:     C.uint64_t(o.MaxEntries),
		max_ratio:       C.uint64_t(o.MaxRatio),
		owner:           C.uint32_t(o.Owner),
	}
}

// listener is told how far one call is, and keeps what came of that.
type listener struct {
	tell   func(ImageProgress) error
	err    error
	broken bool // by a panic, or by Goexit if that has no value
	value  any
}

// hear is false if the call has to stop.
func (l *listener) hear(progress ImageProgress) (goOn bool) {
	if l.err != nil || l.broken {
		return false
	}
	returned, value := apart(func() { l.err = l.tell(progress) })
	l.broken, l.value = !returned, value
	return l.err == nil && returned
}

// goOn goes on, outside of C, with what broke the callback.
func (l *listener) goOn() {
	switch {
	case l.value != nil:
		panic(l.value)
	case l.broken:
		runtime.Goexit()
	}
}

// call makes a call with the options, and with a path or the name of an image.
func (o *ImageOptions) call(
	text string,
	call func(text *C.char, opts *C.struct_locule_image_opts, e **C.locule_error) C.int,
) error {
	var memory memory
	defer memory.free()
	opts, name := o.lower(&memory), memory.copy(text)
	if err := memory.check(); err != nil {
		return err
	}
	cancel, done, err := o.Cancel.lend()
	if err != nil {
		return err
	}
	defer done()
	opts.cancel = cancel
	listener := listener{tell: o.Progress}
	if o.Progress != nil {
		user := cgo.NewHandle(&listener)
		defer user.Delete()
		C.progress_to(&opts, C.uintptr_t(user))
	}
	var e *C.locule_error
	err = failed(call(name, &opts, &e), e)
	listener.goOn()
	if said, ok := err.(*Error); ok {
		said.Cause = listener.err
	}
	return err
}

// ImageStore is a locule_image_store.
type ImageStore struct{ handle }

func (s *ImageStore) acquire() (*C.locule_image_store, error) {
	ptr, err := s.handle.acquire()
	return (*C.locule_image_store)(ptr), err
}

// OpenImageStore is locule_image_store_open.
func OpenImageStore(path string, flags uint64) (*ImageStore, error) {
	var memory memory
	defer memory.free()
	opts := C.struct_locule_image_store_opts{
		size:  C.sizeof_struct_locule_image_store_opts,
		flags: C.uint64_t(flags),
		path:  memory.string(path),
	}
	if err := memory.check(); err != nil {
		return nil, err
	}
	var ptr *C.locule_image_store
	var e *C.locule_error
	if err := failed(C.locule_image_store_open(&opts, &ptr, &e), e); err != nil {
		return nil, err
	}
	s := new(ImageStore)
	s.init(unsafe.Pointer(ptr), func(p unsafe.Pointer) { C.locule_image_store_unref((*C.locule_image_store)(p)) })
	return s, nil
}

// Path is the store's directory, or "" of a closed handle.
func (s *ImageStore) Path() string {
	ptr, err := s.acquire()
	if err != nil {
		return ""
	}
	defer s.release()
	return C.GoString(C.locule_image_store_path(ptr))
}

// Load is locule_image_store_load.
func (s *ImageStore) Load(path string, o *ImageOptions) (*Image, error) {
	store, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	return o.make(path, func(text *C.char, opts *C.struct_locule_image_opts, ptr **C.locule_image, e **C.locule_error) C.int {
		return C.locule_image_store_load(store, text, opts, ptr, e)
	})
}

// Pull is locule_image_store_pull.
func (s *ImageStore) Pull(reference string, o *ImageOptions) (*Image, error) {
	store, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	return o.make(reference, func(text *C.char, opts *C.struct_locule_image_opts, ptr **C.locule_image, e **C.locule_error) C.int {
		return C.locule_image_store_pull(store, text, opts, ptr, e)
	})
}

// Import is locule_image_store_import.
func (s *ImageStore) Import(path string, o *ImageOptions) (*Image, error) {
	store, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	return o.make(path, func(text *C.char, opts *C.struct_locule_image_opts, ptr **C.locule_image, e **C.locule_error) C.int {
		return C.locule_image_store_import(store, text, opts, ptr, e)
	})
}

// Commit is locule_image_store_commit.
func (s *ImageStore) Commit(c *Container, o *ImageOptions) (*Image, error) {
	store, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	container, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	return o.make("", func(_ *C.char, opts *C.struct_locule_image_opts, ptr **C.locule_image, e **C.locule_error) C.int {
		return C.locule_image_store_commit(store, container, opts, ptr, e)
	})
}

// make is call for those that give an image.
func (o *ImageOptions) make(
	text string,
	call func(text *C.char, opts *C.struct_locule_image_opts, ptr **C.locule_image, e **C.locule_error) C.int,
) (*Image, error) {
	var ptr *C.locule_image
	err := o.call(text, func(text *C.char, opts *C.struct_locule_image_opts, e **C.locule_error) C.int {
		return call(text, opts, &ptr, e)
	})
	if err != nil {
		return nil, err
	}
	return newImage(ptr), nil
}

// Get is locule_image_store_get.
func (s *ImageStore) Get(name string) (*Image, error) {
	store, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	var memory memory
	defer memory.free()
	text := memory.copy(name)
	if err := memory.check(); err != nil {
		return nil, err
	}
	var ptr *C.locule_image
	var e *C.locule_error
	if err := failed(C.locule_image_store_get(store, text, &ptr, &e), e); err != nil {
		return nil, err
	}
	return newImage(ptr), nil
}

// ListJSON is locule_image_store_list_json.
func (s *ImageStore) ListJSON() ([]byte, error) {
	ptr, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	var buf C.locule_buf
	var e *C.locule_error
	if err := failed(C.locule_image_store_list_json(ptr, &buf, &e), e); err != nil {
		return nil, err
	}
	return take(&buf), nil
}

// Remove is locule_image_store_remove.
func (s *ImageStore) Remove(name string) error {
	ptr, err := s.acquire()
	if err != nil {
		return err
	}
	defer s.release()
	var memory memory
	defer memory.free()
	text := memory.copy(name)
	if err := memory.check(); err != nil {
		return err
	}
	var e *C.locule_error
	return failed(C.locule_image_store_remove(ptr, text, &e), e)
}

// PruneJSON is locule_image_store_prune_json.
func (s *ImageStore) PruneJSON(o *ImageOptions) ([]byte, error) {
	ptr, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	var buf C.locule_buf
	err = o.call("", func(_ *C.char, opts *C.struct_locule_image_opts, e **C.locule_error) C.int {
		return C.locule_image_store_prune_json(ptr, opts, &buf, e)
	})
	if err != nil {
		return nil, err
	}
	return take(&buf), nil
}

// Image is a locule_image.
type Image struct{ handle }

func (i *Image) acquire() (*C.locule_image, error) {
	ptr, err := i.handle.acquire()
	return (*C.locule_image)(ptr), err
}

func newImage(ptr *C.locule_image) *Image {
	i := new(Image)
	i.init(unsafe.Pointer(ptr), func(p unsafe.Pointer) { C.locule_image_unref((*C.locule_image)(p)) })
	return i
}

// lend returns the image for a call; done must follow it. A nil *Image is none.
func (i *Image) lend() (ptr *C.locule_image, done func(), err error) {
	if i == nil {
		return nil, func() {}, nil
	}
	ptr, err = i.acquire()
	return ptr, i.release, err
}

// Digest is the digest of the manifest, or "" of a closed handle.
func (i *Image) Digest() string {
	ptr, err := i.acquire()
	if err != nil {
		return ""
	}
	defer i.release()
	return C.GoString(C.locule_image_digest(ptr))
}

// InspectJSON is locule_image_inspect_json.
func (i *Image) InspectJSON() ([]byte, error) {
	ptr, err := i.acquire()
	if err != nil {
		return nil, err
	}
	defer i.release()
	var buf C.locule_buf
	var e *C.locule_error
	if err := failed(C.locule_image_inspect_json(ptr, &buf, &e), e); err != nil {
		return nil, err
	}
	return take(&buf), nil
}

// Tag is locule_image_tag.
func (i *Image) Tag(name string) error {
	ptr, err := i.acquire()
	if err != nil {
		return err
	}
	defer i.release()
	var memory memory
	defer memory.free()
	text := memory.copy(name)
	if err := memory.check(); err != nil {
		return err
	}
	var e *C.locule_error
	return failed(C.locule_image_tag(ptr, text, &e), e)
}

// Save is locule_image_save.
func (i *Image) Save(path string, o *ImageOptions) error {
	image, err := i.acquire()
	if err != nil {
		return err
	}
	defer i.release()
	return o.call(path, func(text *C.char, opts *C.struct_locule_image_opts, e **C.locule_error) C.int {
		return C.locule_image_save(image, text, opts, e)
	})
}

// Push is locule_image_push.
func (i *Image) Push(reference string, o *ImageOptions) error {
	image, err := i.acquire()
	if err != nil {
		return err
	}
	defer i.release()
	return o.call(reference, func(text *C.char, opts *C.struct_locule_image_opts, e **C.locule_error) C.int {
		return C.locule_image_push(image, text, opts, e)
	})
}

// Prepare is locule_image_prepare.
func (i *Image) Prepare(overrides []byte, o *ImageOptions) error {
	image, err := i.acquire()
	if err != nil {
		return err
	}
	defer i.release()
	var memory memory
	defer memory.free()
	text := memory.bytes(overrides)
	return o.call("", func(_ *C.char, opts *C.struct_locule_image_opts, e **C.locule_error) C.int {
		return C.locule_image_prepare(image, text, C.size_t(len(overrides)), opts, e)
	})
}

// Unpack is locule_image_unpack.
func (i *Image) Unpack(dir string, o *ImageOptions) error {
	image, err := i.acquire()
	if err != nil {
		return err
	}
	defer i.release()
	return o.call(dir, func(text *C.char, opts *C.struct_locule_image_opts, e **C.locule_error) C.int {
		return C.locule_image_unpack(image, text, opts, e)
	})
}
