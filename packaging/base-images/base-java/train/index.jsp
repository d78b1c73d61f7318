<%@ page contentType="text/html; charset=UTF-8" %>
<%! int count; %>
<p>${pageContext.request.scheme} ${pageContext.request.serverName} ${param.name} <%= ++count %>
<%= session.getId() %> ${empty sessionScope.x ? 1 : 2}
