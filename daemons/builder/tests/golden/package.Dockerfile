FROM control:5000/dinp/base:bookworm
LABEL dinp.image.app="web"
COPY app/ /app/
WORKDIR /app
USER 1000:1000
ENV PORT=8080
EXPOSE 8080
ENTRYPOINT ["/usr/bin/dinp-start"]
