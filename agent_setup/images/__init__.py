"""Images of the project's programs, where there is no registry and no base image to start from.

An image is put together from what runs here: the interpreter with its library, the packages of the project with
all that they need, the system's libraries behind both, a shell for the go-ahead, and the programs that ours
start. Where base images can be had, the ``Dockerfile`` in this folder is the ordinary way.
"""
