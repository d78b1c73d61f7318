FROM {{base}}
COPY app/ {{app_dir}}/
WORKDIR {{app_dir}}
USER 1000:1000
ENV PORT=8080
EXPOSE 8080
ENTRYPOINT ["/usr/bin/dinp-start"]
