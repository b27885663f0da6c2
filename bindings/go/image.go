package locule

// Images: a store of them, what comes into it, what goes out, and what containers are made of.

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/locule/locule/bindings/go/internal/liblocule"
)

// ImageStore is a directory of images and their unpacked layers. Any number of processes may use
// one at once, and all methods may be called by any number of goroutines at once. It needs a
// library that has "images": see [Has].
type ImageStore struct{ lib *liblocule.ImageStore }

// ImageStoreOption is a choice for [OpenImageStore].
type ImageStoreOption func(*imageStoreConfig)

type imageStoreConfig struct {
	path  string
	flags uint64
}

// WithStorePath keeps images in this directory, which is made if missing. The default is
// /var/lib/locule/images for root, else $XDG_DATA_HOME/locule/images, else
// ~/.local/share/locule/images.
func WithStorePath(path string) ImageStoreOption {
	return func(c *imageStoreConfig) { c.path = path }
}

// WithReadOnlyStore changes nothing there: what is there can be used. Such a store may be another
// user's.
func WithReadOnlyStore() ImageStoreOption {
	return func(c *imageStoreConfig) { c.flags |= liblocule.ImageStoreReadOnly }
}

// OpenImageStore opens a store. It does not block but for the filesystem. Give it back with
// [ImageStore.Close].
func OpenImageStore(opts ...ImageStoreOption) (*ImageStore, error) {
	var config imageStoreConfig
	for _, opt := range opts {
		opt(&config)
	}
	lib, err := liblocule.OpenImageStore(config.path, config.flags)
	if err != nil {
		return nil, wrap(context.Background(), "open", "", err)
	}
	return &ImageStore{lib}, nil
}

// Close gives the store up. Images from it go on. It may be called more than once; the error is
// always nil.
func (s *ImageStore) Close() error {
	s.lib.Close()
	return nil
}

// Path is the store's directory; empty after [ImageStore.Close].
func (s *ImageStore) Path() string { return s.lib.Path() }

// Load takes an image from an OCI layout, a directory or a tar file, or from a docker-archive.
// Nothing of it is used before its digest and size were found right: else it fails with [ErrSpec],
// and names the blob.
//
// It has [WithName], [WithFrom], [WithPlatform] and [WithProgress], and blocks until the image is
// in the store; the end of ctx stops it.
func (s *ImageStore) Load(ctx context.Context, path string, opts ...ImageOption) (*Image, error) {
	return makeImage(ctx, "load", "", opts, func(o *liblocule.ImageOptions) (*liblocule.Image, error) {
		return s.lib.Load(path, o)
	})
}

// Pull fetches an image from a registry: "alpine" is "docker.io/library/alpine:latest". What the
// store has of it already is not fetched again. It fails with [ErrPermission] where the registry
// refuses, and needs a library that has "registry".
//
// It has [WithName], [WithPlatform], [WithProgress], [WithCredentials], [WithAuthFile],
// [WithCAFile] and [WithRegistriesFile], and blocks as [ImageStore.Load] does.
func (s *ImageStore) Pull(ctx context.Context, reference string, opts ...ImageOption) (*Image, error) {
	return makeImage(ctx, "pull", "", opts, func(o *liblocule.ImageOptions) (*liblocule.Image, error) {
		return s.lib.Pull(reference, o)
	})
}

// Import makes an image of one layer of a root filesystem, a directory or a tar file.
//
// It has [WithName], [WithCompression], [WithConfig], [WithAuthor], [WithComment], [WithCreated]
// and [WithProgress], and blocks as [ImageStore.Load] does.
func (s *ImageStore) Import(ctx context.Context, path string, opts ...ImageOption) (*Image, error) {
	return makeImage(ctx, "import", "", opts, func(o *liblocule.ImageOptions) (*liblocule.Image, error) {
		return s.lib.Import(path, o)
	})
}

// Commit makes an image of the one that a container was made from and what it has changed. The
// container must have been created with [WithChanges] and have stopped, else it fails with
// [ErrState], as for a container that was made from no image.
//
// It has the options of [ImageStore.Import], and blocks as that does.
func (s *ImageStore) Commit(ctx context.Context, c *Container, opts ...ImageOption) (*Image, error) {
	return makeImage(ctx, "commit", c.id, opts, func(o *liblocule.ImageOptions) (*liblocule.Image, error) {
		return s.lib.Commit(c.lib, o)
	})
}

// Get is the image of this name, or with this digest, of which the first twelve hexadecimal digits
// do. It does not block but for the filesystem.
func (s *ImageStore) Get(name string) (*Image, error) {
	lib, err := s.lib.Get(name)
	if err != nil {
		return nil, wrap(context.Background(), "get", "", err)
	}
	return newImage(lib), nil
}

// List is all images, in the order of their names, those without one last. One that is damaged is
// left out. It does not block but for the filesystem.
func (s *ImageStore) List() ([]ImageSummary, error) {
	var images []ImageSummary
	return images, document(context.Background(), "list", "", s.lib.ListJSON, &images)
}

// Remove takes a name away, or with a digest an image with all its names. What nothing else needs
// goes with [ImageStore.Prune]. It does not block but for the filesystem, and up to half a minute
// for who is pruning the store.
func (s *ImageStore) Remove(name string) error {
	return wrap(context.Background(), "remove", "", s.lib.Remove(name))
}

// Prune removes images without a name, and what no image and no container needs; with all also the
// images that no container uses, named or not. It blocks until that is done, and before it up to
// half a minute for those who are making something; with [ErrBusy] they take longer. The end of ctx
// stops it, and the next one does the rest.
func (s *ImageStore) Prune(ctx context.Context, all bool) (*Pruned, error) {
	var pruned Pruned
	err := imageCall(ctx, "prune", "", nil, func(o *liblocule.ImageOptions) error {
		if all {
			o.Flags = liblocule.PruneAll
		}
		text, err := s.lib.PruneJSON(o)
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &pruned)
	})
	if err != nil {
		return nil, err
	}
	return &pruned, nil
}

// Pruned is what [ImageStore.Prune] has removed.
type Pruned struct {
	// Images are the digests of images.
	Images []string `json:"images"`
	// Blobs and Layers are the numbers of blobs and of unpacked layers.
	Blobs  int64 `json:"blobs"`
	Layers int64 `json:"layers"`
	// Bytes are those that the blobs had.
	Bytes int64 `json:"bytes"`
}

// ImageSummary is an image in the list of a store.
type ImageSummary struct {
	// Digest is that of the manifest.
	Digest string `json:"digest"`
	// Names are whole: "docker.io/library/alpine:latest".
	Names []string `json:"names"`
	// Size is the bytes of the manifest, the configuration and the layers, compressed as they are.
	Size int64 `json:"size"`
	// MediaType is that of the manifest.
	MediaType string `json:"mediaType"`
	// Platform is os/architecture[/variant].
	Platform string `json:"platform"`
	// Created is when the image was made, in RFC 3339, as it says itself; empty if it does not.
	Created string `json:"created"`
}

// ImageInfo is what an image is.
type ImageInfo struct {
	ImageSummary
	// Layers are its layers, the lowest first.
	Layers []ImageLayer `json:"layers"`
	// Config is the image configuration (image-spec, config.md).
	Config json.RawMessage `json:"config"`
	// Manifest is the manifest (image-spec, manifest.md).
	Manifest json.RawMessage `json:"manifest"`
}

// ImageLayer is a layer of an image.
type ImageLayer struct {
	// Digest and Size are those of the blob, compressed as it is.
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	// MediaType is that of the blob.
	MediaType string `json:"mediaType"`
	// DiffID is the digest of the layer without compression.
	DiffID string `json:"diffId"`
}

// Image is an image in a store. It goes on meaning the same image when its names are given to
// another one. All methods may be called by any number of goroutines at once.
type Image struct {
	lib    *liblocule.Image
	digest string
}

func newImage(lib *liblocule.Image) *Image { return &Image{lib, lib.Digest()} }

// Digest is the digest of the image's manifest, such as "sha256:9f86...".
func (i *Image) Digest() string { return i.digest }

// Inspect says what the image is, with the names as they were when it was looked up. It does not
// block but for the filesystem, and fails with [ErrNotFound] once the image has been pruned.
func (i *Image) Inspect() (*ImageInfo, error) {
	var info ImageInfo
	if err := document(context.Background(), "inspect", "", i.lib.InspectJSON, &info); err != nil {
		return nil, err
	}
	return &info, nil
}

// Tag gives the image a further name, taking that from the image that has it. It does not block
// but for the filesystem, and up to half a minute for who is pruning the store.
func (i *Image) Tag(name string) error {
	return wrap(context.Background(), "tag", "", i.lib.Tag(name))
}

// Save writes the image to an OCI layout: a tar file if path ends with ".tar", else a directory,
// to whose images it is added.
//
// It has [WithName], by default the name by which the image was found, and [WithProgress], and
// blocks until the image is written; the end of ctx stops it.
func (i *Image) Save(ctx context.Context, path string, opts ...ImageOption) error {
	return imageCall(ctx, "save", "", opts, func(o *liblocule.ImageOptions) error {
		return i.lib.Save(path, o)
	})
}

// Push sends the image to a registry, under this name there. What the registry has of it already
// is not sent again. It fails as [ImageStore.Pull] does.
//
// It has [WithProgress], [WithCredentials], [WithAuthFile], [WithCAFile] and [WithRegistriesFile],
// and blocks until the registry has the image; the end of ctx stops it.
func (i *Image) Push(ctx context.Context, reference string, opts ...ImageOption) error {
	return imageCall(ctx, "push", "", opts, func(o *liblocule.ImageOptions) error {
		return i.lib.Push(reference, o)
	})
}

// Unpack unpacks the image to a new or empty directory, as a plain tree; it fails with [ErrExists] if
// the directory is not empty. Nothing of it leaves that directory; what fails may leave a part of it
// there. A container needs no such tree: see [WithImage].
//
// It has [WithOwner], [WithMaxBytes], [WithMaxEntries], [WithMaxRatio] and [WithProgress], and blocks
// until the image is unpacked; the end of ctx stops it.
func (i *Image) Unpack(ctx context.Context, dir string, opts ...ImageOption) error {
	return imageCall(ctx, "unpack", "", opts, func(o *liblocule.ImageOptions) error {
		return i.lib.Unpack(dir, o)
	})
}

// Prepare unpacks into the store what a container needs that is created of the image with these
// overrides, so that its creation need not. Of the overrides only UIDMappings, GIDMappings and
// NoOverlay make a difference. Nothing is done if that is there, if the container is to have no
// overlay, or if the store was opened read-only.
//
// It has [WithProgress], and blocks until the image is unpacked; the end of ctx stops it.
func (i *Image) Prepare(ctx context.Context, overrides ImageOverrides, opts ...ImageOption) error {
	text, err := overrides.document("prepare", nil)
	if err != nil {
		return err
	}
	return imageCall(ctx, "prepare", "", opts, func(o *liblocule.ImageOptions) error {
		return i.lib.Prepare(text, o)
	})
}

// Close gives the handle up. The image stays in its store: see [ImageStore.Remove]. It may be
// called more than once; the error is always nil.
func (i *Image) Close() error {
	i.lib.Close()
	return nil
}

// ImageOption is a choice for what moves images. Each call says which it has; with any other it
// fails with [ErrInvalid].
type ImageOption func(*imageConfig)

type imageConfig struct {
	lib liblocule.ImageOptions
	err error
}

// WithName is the name that the image gets: from [ImageStore.Load] and [ImageStore.Pull] in place
// of the one that it has there, from [ImageStore.Import] and [ImageStore.Commit] in place of none,
// from [Image.Save] in the layout.
func WithName(name string) ImageOption { return func(c *imageConfig) { c.lib.Name = name } }

// WithFrom says which image of several, by the name that it has there.
func WithFrom(name string) ImageOption { return func(c *imageConfig) { c.lib.From = name } }

// WithPlatform says which image of an index, as os/architecture[/variant]. The default is this
// machine's.
func WithPlatform(platform string) ImageOption {
	return func(c *imageConfig) { c.lib.Platform = platform }
}

// WithProgress has the call tell how far it is: of each blob the beginning and the end, and between
// them at most ten times a second, on a goroutine for which the call waits. An error stops the call,
// which returns it inside an [*Error]; a panic stops it, too, and goes on from there. The function
// may use this package, but for images of the same store.
func WithProgress(tell func(ImageProgress) error) ImageOption {
	return func(c *imageConfig) {
		c.lib.Progress = nil
		if tell == nil {
			return
		}
		c.lib.Progress = func(p liblocule.ImageProgress) error {
			return tell(ImageProgress{
				Step: ImageStep(p.Step), Digest: p.Digest, Done: int64(p.Done), Total: int64(p.Total),
				Finished: p.Finished,
			})
		}
	}
}

// ImageProgress is how far a call is with one blob. What is there already is told once, as
// finished.
type ImageProgress struct {
	// Step is what is being done.
	Step ImageStep
	// Digest is the blob's; empty while a layer is being made.
	Digest string
	// Done is the bytes done.
	Done int64
	// Total is the bytes in all; 0 where that is not known.
	Total int64
	// Finished tells whether this blob is finished.
	Finished bool
}

// ImageStep is what is being done to a blob. A later version of the library may know others.
type ImageStep uint32

const (
	// ImageStepFetch brings it into the store.
	ImageStepFetch ImageStep = liblocule.ImageStepFetch
	// ImageStepUnpack unpacks it. The digest is the layer's, the numbers are of its compressed bytes.
	ImageStepUnpack ImageStep = liblocule.ImageStepUnpack
	// ImageStepSave writes it to a layout.
	ImageStepSave ImageStep = liblocule.ImageStepSave
	// ImageStepPush sends it to a registry.
	ImageStepPush ImageStep = liblocule.ImageStepPush
	// ImageStepPack makes a layer of a tree or of a container's changes.
	ImageStepPack ImageStep = liblocule.ImageStepPack
)

// String is the step in a word, such as "fetch".
func (s ImageStep) String() string {
	switch s {
	case ImageStepFetch:
		return "fetch"
	case ImageStepUnpack:
		return "unpack"
	case ImageStepSave:
		return "save"
	case ImageStepPush:
		return "push"
	case ImageStepPack:
		return "pack"
	}
	return fmt.Sprintf("step %d", uint32(s))
}

// WithCredentials are a user and password for the registry. A password without a user is a token.
// Without this option credentials are looked for as [WithAuthFile] says.
func WithCredentials(user, password string) ImageOption {
	return func(c *imageConfig) { c.lib.Username, c.lib.Password = user, password }
}

// WithAuthFile says where credentials are. The default is $REGISTRY_AUTH_FILE, then the usual
// places of podman and Docker.
func WithAuthFile(path string) ImageOption { return func(c *imageConfig) { c.lib.AuthFile = path } }

// WithCAFile names a file in PEM with certificates to trust beside the system's.
func WithCAFile(path string) ImageOption { return func(c *imageConfig) { c.lib.CAFile = path } }

// WithRegistriesFile names the file of mirrors and policy, which docs/images.md describes. The
// default is /etc/locule/registries.json, if it is there.
func WithRegistriesFile(path string) ImageOption {
	return func(c *imageConfig) { c.lib.RegistriesFile = path }
}

// Compression is how a new layer is compressed.
type Compression uint32

const (
	// CompressionGzip is the default, which everything can read.
	CompressionGzip Compression = liblocule.CompressionGzip
	// CompressionZstd is smaller and faster. Docker 23, podman and containerd 1.5 read it.
	CompressionZstd Compression = liblocule.CompressionZstd
	// CompressionNone is none.
	CompressionNone Compression = liblocule.CompressionNone
)

// WithCompression chooses the compression of the new layer.
func WithCompression(compression Compression) ImageOption {
	return func(c *imageConfig) { c.lib.Compression = uint32(compression) }
}

// WithConfig changes config of the image configuration (image-spec, config.md) by a JSON merge
// patch (RFC 7396), such as map[string]any{"Cmd": []string{"sh"}}.
func WithConfig(patch any) ImageOption {
	return func(c *imageConfig) { c.lib.Config, c.err = json.Marshal(patch) }
}

// WithAuthor says who made the image.
func WithAuthor(author string) ImageOption { return func(c *imageConfig) { c.lib.Author = author } }

// WithComment is a remark for the image's history.
func WithComment(comment string) ImageOption {
	return func(c *imageConfig) { c.lib.Comment = comment }
}

// WithCreated says when the image was made. The default is the latest modification time in its new
// layer, so that the same input gives the same image.
func WithCreated(t time.Time) ImageOption {
	return func(c *imageConfig) { c.lib.Created = t.UTC().Format(time.RFC3339Nano) }
}

// WithMaxBytes limits the bytes of a layer without compression. The default is 128 GiB.
func WithMaxBytes(n uint64) ImageOption { return func(c *imageConfig) { c.lib.MaxBytes = n } }

// WithMaxEntries limits the entries of a layer. The default is 4,000,000.
func WithMaxEntries(n uint64) ImageOption { return func(c *imageConfig) { c.lib.MaxEntries = n } }

// WithMaxRatio limits how many times larger than compressed a layer is, beyond its first 64 MiB. The
// default is 1,024.
func WithMaxRatio(n uint64) ImageOption { return func(c *imageConfig) { c.lib.MaxRatio = n } }

// Owner is whom unpacked files belong to.
type Owner uint32

const (
	// OwnerAuto is the default: [OwnerImage], and for an ordinary user, who can have no others,
	// [OwnerCaller].
	OwnerAuto Owner = liblocule.OwnerAuto
	// OwnerImage is whom the image says.
	OwnerImage Owner = liblocule.OwnerImage
	// OwnerCaller is the user of this process.
	OwnerCaller Owner = liblocule.OwnerCaller
)

// WithOwner says whom unpacked files belong to.
func WithOwner(owner Owner) ImageOption { return func(c *imageConfig) { c.lib.Owner = uint32(owner) } }

// imageCall makes a call that takes image options.
func imageCall(ctx context.Context, op, id string, opts []ImageOption, call func(*liblocule.ImageOptions) error) error {
	if err := done(ctx, op, id); err != nil {
		return err
	}
	var config imageConfig
	for _, opt := range opts {
		opt(&config)
	}
	if config.err != nil {
		return invalid(op, config.err.Error())
	}
	cancel, stop, err := cancelWith(ctx)
	if err != nil {
		return wrap(ctx, op, id, err)
	}
	defer stop()
	config.lib.Cancel, config.lib.TimeoutMS = cancel, timeout(ctx, 0)
	return wrap(ctx, op, id, call(&config.lib))
}

// makeImage makes one that gives an image.
func makeImage(
	ctx context.Context, op, id string, opts []ImageOption,
	call func(*liblocule.ImageOptions) (*liblocule.Image, error),
) (image *Image, err error) {
	err = imageCall(ctx, op, id, opts, func(o *liblocule.ImageOptions) error {
		lib, err := call(o)
		if err == nil {
			image = newImage(lib)
		}
		return err
	})
	return image, err
}

// ImageOverrides are what a container is to have other than its image has it. The zero value
// changes nothing.
type ImageOverrides struct {
	// Args are in place of the image's Cmd. nil: that.
	Args []string `json:"args"`
	// Entrypoint is in place of the image's Entrypoint; none if it is empty. The image's Cmd does
	// not count then. nil: the image's.
	Entrypoint []string `json:"entrypoint"`
	// Env is "NAME=value" in place of the image's variable of this name or beside all; "NAME" alone
	// takes one away.
	Env []string `json:"env,omitempty"`
	// ClearEnv leaves the image's environment out.
	ClearEnv bool `json:"clearEnv,omitempty"`
	// Cwd is the working directory, absolute. Default: the image's, or "/".
	Cwd string `json:"cwd,omitempty"`
	// User is USER or USER:GROUP, names of the image's or numbers. Default: the image's, or root.
	User string `json:"user,omitempty"`
	// Hostname is the host name in the container. Default: "locule".
	Hostname string `json:"-"`
	// HostHostname is for the host name of this machine, in place of Hostname.
	HostHostname bool `json:"-"`
	// ReadOnly makes the root filesystem read-only; the image's volumes and /tmp are in memory.
	ReadOnly bool `json:"readonly,omitempty"`
	// NoOverlay makes a copy of the image's files for the container, on disk, in place of a private
	// overlay. So it is anyway where the kernel has no overlay.
	NoOverlay bool `json:"-"`
	// HostNetwork shares the network of this process.
	HostNetwork bool `json:"hostNetwork,omitempty"`
	// Memory is the most memory in bytes. 0: no limit.
	Memory uint64 `json:"memory,omitempty"`
	// CPUs is the most processor time, in processors, such as 1.5. 0: no limit.
	CPUs float64 `json:"cpus,omitempty"`
	// Pids is the most processes and threads. 0: no limit.
	Pids int64 `json:"pids,omitempty"`
	// Mounts are binds into the container.
	Mounts []ImageMount `json:"mounts,omitempty"`
	// Terminal gives the program a terminal, as [WithTTY] does with a size.
	Terminal bool `json:"terminal,omitempty"`
	// Annotations come before those that the image's labels become.
	Annotations map[string]string `json:"annotations,omitempty"`
	// StopSignal is a name or number of a signal, for the annotation that says how to stop the
	// program. Default: the image's.
	StopSignal string `json:"stopSignal,omitempty"`
	// UIDMappings and GIDMappings ask for a user namespace that has these ids, for which the image
	// is unpacked. Both or none. Default: none, or that of an ordinary user.
	UIDMappings []specs.LinuxIDMapping `json:"uidMappings,omitempty"`
	GIDMappings []specs.LinuxIDMapping `json:"gidMappings,omitempty"`
	// Patch is a JSON merge patch (RFC 7396) for the resulting config.json, after all else. It is
	// not for terminals.
	Patch any `json:"patch,omitempty"`
}

// ImageMount is a bind into a container.
type ImageMount struct {
	// Source is the path on the host. A relative one counts from the current directory.
	Source string `json:"source"`
	// Target is the path in the container, absolute.
	Target string `json:"target"`
	// ReadOnly makes it read-only.
	ReadOnly bool `json:"readonly,omitempty"`
}

// WithImage makes the container of an image, in place of a spec and a bundle: its configuration
// becomes the spec, its layers, which are unpacked once, the root filesystem below a private
// overlay. The store keeps what the container needs, so that the image may be closed and removed.
func WithImage(image *Image, overrides ImageOverrides) CreateOption {
	return func(c *createConfig) { c.image, c.overrides = image, overrides }
}

// lowerImage is lower for a container of an image.
func (c *createConfig) lowerImage(o *liblocule.CreateOptions, spec *specs.Spec) error {
	switch {
	case spec != nil:
		return invalid("create", "both a spec and an image are given")
	case c.bundle != "":
		return invalid("create", "both a bundle and an image are given")
	case c.hostRootfs:
		return invalid("create", "HostRootfs does not go with an image")
	}
	c.stdio.tty = c.overrides.Terminal || c.size != nil
	text, err := c.overrides.document("create", c.size)
	o.Image, o.Overrides = c.image.lib, text
	return err
}

// document is the overrides as the library takes them, perhaps with a terminal of this size.
func (o ImageOverrides) document(op string, size *WinSize) ([]byte, error) {
	overrides := struct {
		ImageOverrides
		Hostname     *string    `json:"hostname,omitempty"`
		Overlay      *bool      `json:"overlay,omitempty"`
		TerminalSize *[2]uint16 `json:"terminalSize,omitempty"`
	}{ImageOverrides: o}
	switch {
	case o.Hostname != "" && o.HostHostname:
		return nil, invalid(op, "both Hostname and HostHostname are given")
	case o.Hostname != "" || o.HostHostname:
		overrides.Hostname = &o.Hostname
	}
	if o.NoOverlay {
		overrides.Overlay = new(bool)
	}
	if size != nil {
		overrides.Terminal, overrides.TerminalSize = true, &[2]uint16{size.Rows, size.Cols}
	}
	text, err := json.Marshal(overrides)
	if err != nil {
		return nil, invalid(op, err.Error())
	}
	return text, nil
}
