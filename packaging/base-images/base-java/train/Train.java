import jakarta.servlet.ServletContextEvent;
import jakarta.servlet.ServletContextListener;
import jakarta.servlet.annotation.WebListener;
import java.io.InputStream;
import java.lang.management.ManagementFactory;
import java.net.Socket;
import javax.management.MBeanServer;
import javax.management.ObjectName;

/** Asks Tomcat from inside as soon as it answers, and ends it: what was loaded by then goes into the archive of classes. */
@WebListener
public class Train implements ServletContextListener {
    @Override
    public void contextInitialized(ServletContextEvent event) {
        new Thread(this::train).start();
    }

    private void train() {
        try {
            MBeanServer server = ManagementFactory.getPlatformMBeanServer();
            ObjectName connectors = new ObjectName("Catalina:type=Connector,*");
            int port = -1;
            for (int attempt = 0; attempt < 600 && port <= 0; attempt++) {
                Thread.sleep(50);
                for (ObjectName name : server.queryNames(connectors, null)) {
                    port = (Integer) server.getAttribute(name, "localPort");
                }
            }
            for (String path : new String[] {"/", "/?name=x", "/style.css", "/none"}) {
                ask(port, path);
            }
            System.exit(0);
        } catch (Exception error) {
            error.printStackTrace();
            Runtime.getRuntime().halt(2);
        }
    }

    private static void ask(int port, String path) throws Exception {
        try (Socket socket = new Socket("127.0.0.1", port)) {
            String head = "GET " + path + " HTTP/1.1\r\nHost: a.x\r\nConnection: close\r\nX-Forwarded-For: 192.0.2.7\r\n"
                    + "X-Forwarded-Proto: https\r\nX-Forwarded-Host: a.x\r\nX-Forwarded-Port: 443\r\n\r\n";
            socket.getOutputStream().write(head.getBytes());
            InputStream answer = socket.getInputStream();
            String line = new String(answer.readAllBytes());
            if (!line.startsWith(path.equals("/none") ? "HTTP/1.1 404" : "HTTP/1.1 200")) {
                throw new IllegalStateException(path + ": " + line);
            }
        }
    }
}
