# `make help` lists the targets. Settings are in .env; the environment and the command line win over it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

$(shell mkdir -p target && sed -E 's/^([A-Z_]+) *=/\1 ?=/' .env > target/settings.mk)
include target/settings.mk

CLASSIFY := target/release/image-classification
DOCKER ?= docker
SERVICE := target/release/purlin-job-service
POOL := target/release/purlin-worker-pool
JOB_ENDPOINT ?= localhost:$(JOB_PORT)

# The example's options, as .env has them. An empty setting leaves the option out.
option = $(if $(strip $($(2))),--$(1)=$(strip $($(2))))
CLASSIFY_OPTIONS = $(call option,input,INPUT) $(call option,images_dir,IMAGES_DIR) $(call option,output,OUTPUT) \
    $(call option,model_name,MODEL_NAME) $(call option,model_state_dict_path,MODEL_STATE_DICT_PATH) \
    $(call option,labels,LABELS) $(call option,device,DEVICE) $(call option,precision,PRECISION) \
    $(call option,min_batch_size,MIN_BATCH_SIZE) $(call option,max_batch_size,MAX_BATCH_SIZE) $(call option,top_k,TOP_K)
PORTABLE_OPTIONS = --environment_type=$(ENVIRONMENT_TYPE) $(call option,environment_config,ENVIRONMENT_CONFIG)
SERVE = $(SERVICE) --job_port=$(JOB_PORT) --artifact_port=$(ARTIFACT_PORT) --expansion_port=$(EXPANSION_PORT)
SERVE_POOL = $(POOL) --port=$(WORKER_POOL_PORT)
with_service = tests/with-server.sh $(JOB_PORT) $(SERVE) --
# A run on the job service, with workers of the type given.
on_service = $(with_service) \
    $(CLASSIFY) --runner=PrismRunner --job_endpoint=$(JOB_ENDPOINT) --sdk_worker_parallelism=$(SDK_WORKER_PARALLELISM) \
    --environment_type=$(1) $(if $(strip $(2)),--environment_config='$(strip $(2))') $(CLASSIFY_OPTIONS)
# Flink, Beam's runner for it, and a cluster for the run.
FLINK := $(or $(strip $(FLINK_LOCATION)),third_party/flink/dist)
FLINK_JAR := $(or $(strip $(FLINK_JOB_SERVER_JAR)),third_party/flink/job-server.jar)
with_flink = tests/with-server.sh $(FLINK_PORT) tests/flink-cluster.sh $(FLINK) $(FLINK_PORT) out/flink $(FLINK_TASKMANAGERS) --
with_flink_service = tests/with-server.sh $(JOB_PORT) $(SERVE) --flink_master=$(1) --flink_job_server_jar=$(FLINK_JAR) $(call option,flink_jar_on_cluster,FLINK_JAR_ON_CLUSTER) --
# The pipeline on a job service, whatever runs it there, with workers of the type given.
submit = $(CLASSIFY) --runner=PortableRunner --job_endpoint=$(JOB_ENDPOINT) --environment_type=$(1) \
    $(if $(strip $(2)),--environment_config='$(strip $(2))') $(CLASSIFY_OPTIONS)
COMPARE = $(if $(strip $(EXPECTED)),tests/same-rows.sh $(OUTPUT) $(EXPECTED))

##@ Use
.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-31s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: ## Install what the build needs and fetch libtorch (run by the other targets)
	@setup/packages.sh cmake:cmake nasm:nasm
	@setup/libtorch.sh

.PHONY: run-direct
run-direct: classify ## Classify the images in one process, no service (settings in .env)
	$(CLASSIFY) --runner=DirectRunner $(CLASSIFY_OPTIONS)
	@$(COMPARE)

.PHONY: run-prism
run-prism: classify services ## The same pipeline on the job service, over gRPC, with LOOPBACK workers
	$(with_service) $(CLASSIFY) --runner=PrismRunner --job_endpoint=$(JOB_ENDPOINT) $(PORTABLE_OPTIONS) $(CLASSIFY_OPTIONS)
	@$(COMPARE)

.PHONY: run-process
run-process: classify services ## The same with workers that are processes of this machine
	$(call on_service,PROCESS)
	@$(COMPARE)

.PHONY: run-external
run-external: classify services ## The same with workers of a worker pool, which is started for it and ended
	tests/with-server.sh $(WORKER_POOL_PORT) $(SERVE_POOL) -- $(call on_service,EXTERNAL,localhost:$(WORKER_POOL_PORT))
	@$(COMPARE)

.PHONY: run-docker
run-docker: classify services ## The same with workers in containers (make docker-cpu, or docker-gpu, first)
	$(call on_service,DOCKER,$(WORKER_IMAGE)) $(call option,docker_mounts,DOCKER_MOUNTS) \
	    $(if $(strip $(DOCKER_NETWORK)),--environment_options=docker_network=$(DOCKER_NETWORK))
	@$(COMPARE)

##@ Flink
.PHONY: setup-flink
setup-flink: ## Fetch Flink and Beam's runner for it into third_party/flink (400 MB; FLINK_LOCATION, FLINK_JOB_SERVER_JAR: yours)
	@FLINK_LOCATION=$(FLINK_LOCATION) FLINK_JOB_SERVER_JAR=$(FLINK_JOB_SERVER_JAR) setup/flink.sh

.PHONY: run-flink
run-flink: classify services setup-flink ## The same on a Flink cluster that is started for it, by --runner=FlinkRunner: no service to start
	$(with_flink) $(CLASSIFY) --runner=FlinkRunner --flink_master=localhost:$(FLINK_PORT) --flink_job_server_jar=$(FLINK_JAR) \
	    $(PORTABLE_OPTIONS) $(CLASSIFY_OPTIONS)
	@$(COMPARE)

.PHONY: run-portable-flink
run-portable-flink: classify ## The same on Flink, which Beam's own Java job server runs in its process
	@FLINK_JOB_SERVER_JAR=$(FLINK_JOB_SERVER_JAR) setup/flink.sh job-server
	tests/with-server.sh $(JOB_PORT) tests/flink-job-server.sh $(FLINK_JAR) \
	    out/flink-job-server.log --flink-master='[local]' --job-host=localhost --job-port=$(JOB_PORT) --artifact-port=$(ARTIFACT_PORT) \
	    --expansion-port=$(EXPANSION_PORT) -- $(CLASSIFY) --runner=PortableRunner --job_endpoint=$(JOB_ENDPOINT) \
	    $(PORTABLE_OPTIONS) $(CLASSIFY_OPTIONS)
	@$(COMPARE)

.PHONY: run-portable-flink-local
run-portable-flink-local: classify services setup-flink ## The job service in front of a Flink cluster that is started for it, LOOPBACK workers
	$(with_flink) $(call with_flink_service,localhost:$(FLINK_PORT)) $(call submit,LOOPBACK)
	@$(COMPARE)

.PHONY: run-portable-flink-worker-local
run-portable-flink-worker-local: classify services setup-flink ## The same with workers of a worker pool; WORKERS=DOCKER: in containers (make docker-cpu first)
	$(with_flink) $(call with_flink_service,localhost:$(FLINK_PORT)) \
	    $(if $(filter DOCKER,$(WORKERS)),$(call submit,DOCKER,$(WORKER_IMAGE)),tests/with-server.sh $(WORKER_POOL_PORT) $(SERVE_POOL) -- \
	    $(call submit,EXTERNAL,localhost:$(WORKER_POOL_PORT)))
	@$(COMPARE)

.PHONY: create-flink-cluster
create-flink-cluster: services setup-flink ## Start a cluster of two TaskManagers, each with a worker pool (PROVIDER=local; dataproc, kubernetes: what to run)
	@setup/flink_cluster.py create --provider=$(PROVIDER) --flink=$(FLINK) --pool=$(POOL) $(if $(CONFIRM),--confirm)

.PHONY: run-portable-flink-cluster
run-portable-flink-cluster: classify services ## The same on that cluster, or on FLINK_MASTER, with the worker pools beside the TaskManagers
	$(call with_flink_service,$$(setup/flink_cluster.py master $(call option,given,FLINK_MASTER))) $(call submit,EXTERNAL,localhost:5000) \
	    $(call option,parallelism,FLINK_PARALLELISM)
	@$(COMPARE)

.PHONY: remove-flink-cluster
remove-flink-cluster: ## End what create-flink-cluster started
	@setup/flink_cluster.py remove $(if $(CONFIRM),--confirm)

##@ Serve
.PHONY: job-service
job-service: services ## Run the job service in the foreground
	$(SERVE)

.PHONY: worker-pool
worker-pool: services ## Run the worker pool in the foreground
	$(SERVE_POOL) $(if $(strip $(HARNESS_COMMAND)),--harness_command='$(strip $(HARNESS_COMMAND))')

##@ Build
.PHONY: classify
classify: setup
	@cargo build --release -q -p image-classification --bin image-classification --bin image-classifier

.PHONY: services
services: # Links no libtorch: `setup` is not asked for.
	@cargo build --release -q -p purlin-job-service -p purlin-worker-pool

.PHONY: docker-cpu
docker-cpu: setup services ## Build the image of Rust workers with libtorch, out of this machine's files
	@DOCKER=$(DOCKER) docker/build.sh cpu $(CPU_IMAGE)

.PHONY: docker-gpu
docker-gpu: services ## The same with CUDA (fetches libtorch with CUDA, 3.7 GB, and builds the example with it)
	@setup/libtorch.sh --cuda
	@$(MAKE) --no-print-directory classify
	@DOCKER=$(DOCKER) docker/build.sh gpu $(GPU_IMAGE)

.PHONY: push-docker-cpu
push-docker-cpu: ## Push the CPU image to REGISTRY
	@DOCKER=$(DOCKER) docker/push.sh $(CPU_IMAGE) $(REGISTRY)

.PHONY: build
build: classify services ## Build the release binaries

.PHONY: train
train: setup ## Train the shipped CNN on the digits; write its weights, images, labels and expected rows
	@setup/python.sh
	cargo run --release -q -p image-classification --bin train

.PHONY: descriptor-set
descriptor-set: ## Write the descriptor set of proto/ to DESCRIPTOR_SET=file
	@test -n "$(DESCRIPTOR_SET)" || { echo "say where: make descriptor-set DESCRIPTOR_SET=file" >&2; exit 2; }
	@cargo run --release -q -p purlin-proto --example descriptor-set -- "$(DESCRIPTOR_SET)"

##@ Check
.PHONY: test
test: setup ## What shows that a checkout works: unit, property, simulation and doc tests, the run targets, a core of Beam's suites
	@setup/python.sh
	@python3 tests/all.py first --save=target/first-tier.json

# Asked for both, make runs `test` once.
.PHONY: test-all
test-all: test ## The same, and all the rest: lints, docs, all of Beam's suites, Go, Java, Prism, Docker, long simulations, fuzzing
	@[ -z "$${CI:-}" ] || setup/packages.sh dockerd:docker.io docker-registry:docker-registry java:default-jdk-headless mvn:maven
	@[ -z "$${CI:-}" ] || setup/go.sh
	@[ -z "$${CI:-}" ] || setup/flink.sh
	@python3 tests/all.py second --add=target/first-tier.json

.PHONY: conformance
conformance: services ## Beam's own suites alone (SUITES="batch streaming" for some)
	@setup/python.sh
	@python3 conformance/run.py $(SUITES)

.PHONY: bench
bench: setup services ## The benchmarks against peers (a hand-written loop, Beam's Python job service, Prism where PRISM names it)
	@setup/python.sh
	cargo bench -q -p purlin-benches --bench word_count --bench images
	third_party/venv/bin/python benches/job_service.py

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: clean
clean: ## Remove what was built (third_party stays)
	cargo clean
	rm -rf out beam-suite-logs
