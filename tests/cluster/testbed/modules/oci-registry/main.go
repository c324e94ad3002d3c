// An OCI registry with the referrers API and uploads in one request, in memory: CUE's, whose library has no program.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
)

// The library hashes a blob each time somebody asks whether it is there, which no other registry does: a build tool
// that asks for its base's layers would be measured by that.
type remembering struct {
	*ocimem.Registry
	known sync.Map
}

type blob struct {
	repository string
	digest     ociregistry.Digest
}

func (r *remembering) ResolveBlob(
	ctx context.Context, repository string, digest ociregistry.Digest,
) (ociregistry.Descriptor, error) {
	if found, ok := r.known.Load(blob{repository, digest}); ok {
		return found.(ociregistry.Descriptor), nil
	}
	found, err := r.Registry.ResolveBlob(ctx, repository, digest)
	if err == nil {
		r.known.Store(blob{repository, digest}, found)
	}
	return found, err
}

func (r *remembering) DeleteBlob(ctx context.Context, repository string, digest ociregistry.Digest) error {
	r.known.Delete(blob{repository, digest})
	return r.Registry.DeleteBlob(ctx, repository, digest)
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on %s", listener.Addr())
	server := &http.Server{
		Handler:           ociserver.New(&remembering{Registry: ocimem.New()}, nil),
		ReadHeaderTimeout: time.Minute,
	}
	log.Fatal(fmt.Errorf("ended: %w", server.Serve(listener)))
}
